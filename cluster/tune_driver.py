"""How Ray Tune is told what to try and when to stop, and how a search hears what comes of it."""

import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.search_config import SearchConfig
from cluster.searching import Search, SearchProgress
from cluster.signals import listening
from cluster.trials import Trial

logger = logging.getLogger(__name__)

_SHOW_EVERY_SECONDS = 1.0
_LONGEST_REASON = 500


class NextTrial(Searcher):
    """Hands Tune the numbers of the trials to start.

    Args:
        search: that knows them.
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401  a configuration, or a word for none
        """Return the number of the next trial, or that there is none."""
        trial = self._search.next()
        return Searcher.FINISHED if trial is None else {"number": trial.number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the search hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the search is on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, likewise."""

    def __reduce__(self) -> tuple:
        """Leave the search behind: Tune writes a copy of what it was given, which nobody reads."""
        return Searcher, ()


class TellSearch(Callback):
    """Tells a search what its trials report, and how they end.

    Args:
        search: to tell.
    """

    def __init__(self, search: Search) -> None:
        self._search = search

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:  # noqa: ANN401
        """Count a start."""
        self._search.note_start(trial.config["number"])

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401
    ) -> None:
        """Pass on a validation."""
        self._search.report(trial.config["number"], result)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:  # noqa: ANN401
        """Tell why the trial has ended: by itself, or because others are better."""
        result: Mapping[str, Any] = trial.last_result or {}
        if "failure" in result:
            self._search.end(trial.config["number"], "failed", result["failure"])
        else:
            self._search.end(trial.config["number"], "finished" if result.get("is_complete") else "stopped")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:  # noqa: ANN401
        """Tell that a trial's process was lost too often."""
        lines = str(trial.get_error() or "").strip().splitlines() or ["its process was lost"]
        self._search.end(trial.config["number"], "failed", " ".join(lines[-1].split())[:_LONGEST_REASON])

    def __reduce__(self) -> tuple:
        """Leave the search behind, as above."""
        return Callback, ()


def scheduler_of(config: SearchConfig, trials: Sequence[Trial]) -> TrialScheduler:
    """Return the scheduler, which knows what earlier trials reported at which epoch.

    Args:
        config: of the search.
        trials: of earlier starts; those that have not ended tell it themselves when they start again.
    """
    if config.scheduler == "none":
        return FIFOScheduler()
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=config.metric,
        mode=config.mode,
        max_t=config.max_epochs,
        reduction_factor=config.reduction_factor,
        stop_last_trials=False,  # a trial ends by itself, after its last step
    )
    known: Any = {trial.number: SimpleNamespace(trial_id=trial.name) for trial in trials if trial.has_ended}
    for one in known.values():
        scheduler.on_trial_add(None, one)  # type: ignore[arg-type]  it reads nothing of the controller
    reports = sorted(
        (report.timestamp_ms, trial.number, report) for trial in trials if trial.has_ended for report in trial.reports
    )
    for _, number, report in reports:
        result = {"epoch": report.epoch, config.metric: report.score}
        scheduler.on_trial_result(None, known[number], result)  # type: ignore[arg-type]  likewise
    return scheduler


def follow(fit: Callable[[], object], search: Search, show: Callable[[SearchProgress], None]) -> None:
    """Run Tune in a thread to its end, so that this one stays free to show progress and to be told to end.

    Args:
        fit: runs Tune.
        search: to show.
        show: called about once a second, and at the end.

    Raises:
        KeyboardInterrupt, SystemExit: it was told to end; what the trials have on disk is all that counts.
        Exception: that ``fit`` raised.
    """
    failures: list[Exception] = []

    def run() -> None:
        try:
            fit()
        except Exception as error:  # of a thread, which nobody else hears
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True, name="captioning-tune")
    with listening() as told:
        thread.start()
        while thread.is_alive():
            thread.join(_SHOW_EVERY_SECONDS)
            show(search.progress())
            if told:
                search.close()
                logger.warning("stopped; the same command again goes on from the trials' last checkpoints")
                raise KeyboardInterrupt if told[0] == signal.SIGINT else SystemExit(128 + told[0])
    if failures:
        raise failures[0]
