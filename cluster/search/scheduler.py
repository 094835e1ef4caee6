"""Scheduler of a search: decides which trial to train next, and records the trials' reports and final states."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.search.space.asha import NextRung, next_rung, rung_epochs
from cluster.search.space.config import TuneRun
from cluster.search.space.sampling import suggest
from cluster.search.space.space import SearchSpace
from cluster.search.trials import Trial, TrialReport, TrialState, best_trial, observations

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchProgress:
    """The progress of a search, for display."""

    trials: tuple[Trial, ...]
    num_trials: int
    """Number of all trials, including those that have not started."""
    max_epochs: int
    """Number of epochs of a trial that is not stopped early."""
    best: Trial | None
    """The trial with the best score; None while there is no score."""
    seconds: float
    """Time since this start of the search, in seconds."""
    num_epochs_done: int
    """Number of epochs of all trials together, over all starts of the search."""
    seconds_left: float | None
    """Estimate of the time left, in seconds; None until a trial has ended and this start has trained an epoch."""


class SearchScheduler:
    """The trials of one search; a method that changes a trial writes it to disk before it returns.

    Args:
        run: the search.
        space: the search space.
        trials: the trials of earlier starts, from the record on disk.
        num_trials: number of all trials.
        prepare: function that is called with each trial before it starts or resumes; creates its runs, and returns the
            trial with the id of its MLflow run.
        clock: returns the time in seconds, monotonic.
    """

    def __init__(
        self,
        run: TuneRun,
        space: SearchSpace,
        trials: Sequence[Trial],
        *,
        num_trials: int,
        prepare: Callable[[Trial], Trial],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._space, self._num_trials, self._prepare, self._clock = run, space, num_trials, prepare, clock
        self._trials = {trial.number: trial for trial in trials}
        self._to_resume = [trial.number for trial in trials if not trial.has_ended]
        self._most_at_once = num_trials
        self._started, self._epochs_before = clock(), _num_epochs(trials)
        self._lock, self._is_closed = threading.RLock(), False

    @property
    def trials(self) -> list[Trial]:
        """Return all trials so far, by number."""
        with self._lock:
            return [self._trials[number] for number in sorted(self._trials)]

    @property
    def is_done(self) -> bool:
        """Return whether no trial is running, none can be promoted, and no point is left to try."""
        with self._lock:
            is_running = any(not trial.has_ended for trial in self._trials.values())
            return self._is_closed or not (is_running or self._next_rung() or self._new_point() is not None)

    def next_trial(self) -> Trial | None:
        """Return the trial to train next; None if there is none, or if a running trial must report first.

        Trials that an earlier start left running come first, then promotions, then new trials.
        """
        with self._lock:
            if self._is_closed or len(self._in_training()) >= self._most_at_once:
                return None
            if self._to_resume:
                return self._start(self._trials[self._to_resume.pop(0)])
            if promoted := self._next_rung():
                trial = self._trials[promoted.number]
                return self._start(replace(trial, until=promoted.until, state="running"))
            point = self._new_point()
            if point is None:
                return None
            first, *_ = rung_epochs(self._run.search)
            return self._start(Trial(number=self._new_number, point=point, key=uuid.uuid4().hex, until=first))

    def _next_rung(self) -> NextRung | None:
        return next_rung(self.trials, self._run.search)

    @property
    def _new_number(self) -> int:
        return max(self._trials, default=-1) + 1

    def _new_point(self) -> dict[str, Any] | None:
        """Return the point of the next new trial; None if there are enough trials, or no points left."""
        search = self._run.search
        if self._new_number >= self._num_trials:
            return None
        return suggest(
            self._space,
            self._new_number,
            observations(self.trials, search.mode),
            sampler=search.sampler,
            seed=search.search_seed,
            mode=search.mode,
        )

    def _start(self, trial: Trial) -> Trial:
        return self._save(self._prepare(trial))

    def add_report(self, number: int, result: Mapping[str, Any]) -> None:
        """Add the report of a validation to a trial.

        A result without the metric is ignored. So is one of a step that was reported before, by a trial that restarted.

        Args:
            number: number of the trial.
            result: ``step``, ``epoch``, ``seconds`` and the search's metric, by name.
        """
        with self._lock:
            trial = self._trials[number]
            if self._run.search.metric not in result or (trial.reports and result["step"] <= trial.reports[-1].step):
                return
            report = TrialReport(
                step=result["step"],
                epoch=result["epoch"],
                score=result[self._run.search.metric],
                seconds=result["seconds"],
                timestamp_ms=int(time.time() * 1000),
            )
            self._save(replace(trial, reports=(*trial.reports, report)))

    def end_trial(self, number: int, state: TrialState, reason: str = "") -> None:
        """Record a trial's final state, and why it failed or stopped early."""
        with self._lock:
            self._save(replace(self._trials[number], state=state, reason=reason))

    def run_out_of_memory(self, number: int) -> None:
        """Let a trial that ran out of memory resume later, with fewer at once; if it trained alone, it has failed."""
        with self._lock:
            others = len(self._in_training()) - 1
            if others < 1:
                reason = "memory ran out, though no other trial trained; use a smaller model or batch, or more memory"
                self.end_trial(number, "failed", reason)
                return
            self._most_at_once = min(self._most_at_once, others)
            self._to_resume.append(number)
            logger.warning(
                "memory ran out for trial %d; it resumes later, with at most %d at once", number, self._most_at_once
            )

    def _in_training(self) -> list[Trial]:
        waiting = set(self._to_resume)
        return [trial for trial in self.trials if not trial.has_ended and trial.number not in waiting]

    def set_mlflow_run(self, number: int, mlflow_run_id: str) -> None:
        """Record the MLflow run of a trial."""
        with self._lock:
            self._save(replace(self._trials[number], mlflow_run_id=mlflow_run_id))

    def close(self) -> None:
        """Stop recording: a trial that is killed because the search stops has not failed."""
        with self._lock:
            self._is_closed = True

    def progress(self) -> SearchProgress:
        """Return the progress of the search."""
        trials = self.trials
        seconds = self._clock() - self._started
        return SearchProgress(
            trials=tuple(trials),
            num_trials=self._num_trials,
            max_epochs=self._run.search.max_epochs,
            best=best_trial(trials, self._run.search.mode),
            seconds=seconds,
            num_epochs_done=_num_epochs(trials),
            seconds_left=self._seconds_left(trials, seconds),
        )

    def _seconds_left(self, trials: Sequence[Trial], seconds: float) -> float | None:
        """Extrapolate: each trial trains as many epochs as an ended one on average, at the speed of this start."""
        done = _num_epochs(trials) - self._epochs_before
        ended = [trial.epochs for trial in trials if trial.has_ended]
        if not done or not ended:
            return None
        expected = self._num_trials * sum(ended) / len(ended)
        return max(0.0, expected - _num_epochs(trials)) * seconds / done

    def _save(self, trial: Trial) -> Trial:
        if self._is_closed:
            return trial
        trial.save(self._run.folder)
        self._trials[trial.number] = trial
        return trial


def _num_epochs(trials: Sequence[Trial]) -> int:
    return sum(trial.epochs for trial in trials)
