"""How Ray Tune is told what to try and when to stop, and how a search hears what comes of it."""

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from cluster.errors import last_line
from cluster.search.scheduler import Search, SearchProgress
from cluster.signals import listening

logger = logging.getLogger(__name__)

_SHOW_EVERY_SECONDS = 1.0


class NextTrial(Searcher):
    """Hands Tune what to train next: a new trial, or one that goes on.

    Args:
        search: that knows them.
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401  a configuration, or a word for none
        """Return the next trial and how far it trains; None if that depends on those that run; or that all is done."""
        trial = self._search.next()
        if trial:
            return {"number": trial.number, "until": trial.until}
        return Searcher.FINISHED if self._search.is_over else None

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
        """Tell how the trial has ended: by itself, or where it is compared with others."""
        result: Mapping[str, Any] = trial.last_result or {}
        if "failure" in result:
            self._search.end(trial.config["number"], "failed", result["failure"])
        else:
            self._search.end(trial.config["number"], "finished" if result.get("is_complete") else "stopped")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:  # noqa: ANN401
        """Tell that a trial's process was lost too often."""
        reason = last_line(str(trial.get_error() or "")) or "its process was lost"
        self._search.end(trial.config["number"], "failed", reason)

    def __reduce__(self) -> tuple:
        """Leave the search behind, as above."""
        return Callback, ()


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
