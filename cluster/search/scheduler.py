"""A search as its driver sees it: which trial is next, what each has reported, and how it ended."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.search.space.asha import Promotion, next_promotion, rungs_of
from cluster.search.space.config import TuneRun
from cluster.search.space.sampling import suggest
from cluster.search.space.space import SearchSpace
from cluster.search.trials import Report, State, Trial, best_trial, tried


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchProgress:
    """How far a search is, for people."""

    trials: tuple[Trial, ...]
    num_trials: int
    """That are to be."""
    max_epochs: int
    best: Trial | None
    seconds: float
    """Since this start."""
    num_epochs_done: int
    """In all, over all starts."""
    seconds_left: float | None
    """Guessed from what the trials took so far; None if nothing is known yet."""


class Search:
    """The trials of one search; each change is on disk before it is returned.

    Args:
        run: the search.
        space: of it.
        trials: of earlier starts.
        num_trials: in all.
        begin: called with every trial before it starts, now or again; returns it as it is to be kept.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        run: TuneRun,
        space: SearchSpace,
        trials: Sequence[Trial],
        *,
        num_trials: int,
        begin: Callable[[Trial], Trial],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._space, self._num_trials, self._begin, self._clock = run, space, num_trials, begin, clock
        self._trials = {trial.number: trial for trial in trials}
        self._waiting = [trial.number for trial in trials if not trial.has_ended]
        self._started, self._epochs_before = clock(), _epochs(trials)
        self._changing, self._is_closed = threading.RLock(), False

    @property
    def trials(self) -> list[Trial]:
        """Return all trials so far, by number."""
        with self._changing:
            return [self._trials[number] for number in sorted(self._trials)]

    @property
    def is_over(self) -> bool:
        """Return whether nothing is left to train, now or once the trials that run have reported."""
        with self._changing:
            runs = any(not trial.has_ended for trial in self._trials.values())
            return self._is_closed or not (runs or self._promotion() or self._new_point() is not None)

    def next(self) -> Trial | None:
        """Return what to train next; None if nothing is left, or that depends on what runs.

        First come the trials that an earlier start left, then those that have earned to go on, then new ones.
        """
        with self._changing:
            if self._is_closed:
                return None
            if self._waiting:
                return self._start(self._trials[self._waiting.pop(0)])
            if promotion := self._promotion():
                trial = self._trials[promotion.number]
                return self._start(replace(trial, until=promotion.until, state="running"))
            point = self._new_point()
            if point is None:
                return None
            first, *_ = rungs_of(self._run.search)
            return self._start(Trial(number=self._new_number, point=point, key=uuid.uuid4().hex, until=first))

    def _promotion(self) -> Promotion | None:
        return next_promotion(self.trials, self._run.search)

    @property
    def _new_number(self) -> int:
        return max(self._trials, default=-1) + 1

    def _new_point(self) -> dict[str, Any] | None:
        """Return the point that no trial has yet, if there is to be one more."""
        search = self._run.search
        if self._new_number >= self._num_trials:
            return None
        known = tried(self.trials, search.mode)
        return suggest(
            self._space,
            self._new_number,
            known,
            sampler=search.sampler,
            seed=search.search_seed,
            mode=search.mode,
        )

    def _start(self, trial: Trial) -> Trial:
        return self._keep(self._begin(trial))

    def report(self, number: int, result: Mapping[str, Any]) -> None:
        """Take a validation of a trial; what it tells again after a restart is known."""
        with self._changing:
            trial = self._trials[number]
            if self._run.search.metric not in result or (trial.reports and result["step"] <= trial.reports[-1].step):
                return
            report = Report(
                result["step"],
                result["epoch"],
                result[self._run.search.metric],
                result["seconds"],
                int(time.time() * 1000),
            )
            self._keep(replace(trial, reports=(*trial.reports, report)))

    def end(self, number: int, state: State, reason: str = "") -> None:
        """Note how a trial ended."""
        with self._changing:
            self._keep(replace(self._trials[number], state=state, reason=reason))

    def name_run(self, number: int, mlflow_run_id: str) -> None:
        """Note the MLflow run of a trial."""
        with self._changing:
            self._keep(replace(self._trials[number], mlflow_run_id=mlflow_run_id))

    def close(self) -> None:
        """Take nothing more: what trials do while they are taken down is not how they ended."""
        with self._changing:
            self._is_closed = True

    def progress(self) -> SearchProgress:
        """Return how far the search is."""
        trials = self.trials
        seconds = self._clock() - self._started
        return SearchProgress(
            trials=tuple(trials),
            num_trials=self._num_trials,
            max_epochs=self._run.search.max_epochs,
            best=best_trial(trials, self._run.search.mode),
            seconds=seconds,
            num_epochs_done=_epochs(trials),
            seconds_left=self._seconds_left(trials, seconds),
        )

    def _seconds_left(self, trials: Sequence[Trial], seconds: float) -> float | None:
        """Guess that trials to come are as long as those that ended, and that all go on at the same speed."""
        done = _epochs(trials) - self._epochs_before
        ended = [trial.epochs for trial in trials if trial.has_ended]
        if not done or not ended:
            return None
        wanted = self._num_trials * sum(ended) / len(ended)
        return max(0.0, wanted - _epochs(trials)) * seconds / done

    def _keep(self, trial: Trial) -> Trial:
        if self._is_closed:
            return trial
        trial.save(self._run.folder)
        self._trials[trial.number] = trial
        return trial


def _epochs(trials: Sequence[Trial]) -> int:
    return sum(trial.epochs for trial in trials)
