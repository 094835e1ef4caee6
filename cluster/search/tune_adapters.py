"""Ray Tune's searcher and callback of a search; both delegate each call to the scheduler.

Tune pickles both into its own snapshot of the search, which is not used, so their ``__reduce__`` omits the scheduler.
"""

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from cluster.errors import is_out_of_memory, last_line
from cluster.search.scheduler import SearchProgress, SearchScheduler
from cluster.signals import listening

logger = logging.getLogger(__name__)

_SHOW_EVERY_SECONDS = 1.0


class NextTrialSearcher(Searcher):
    """Returns the scheduler's next trial to Tune: a new one, a promoted one, or one to resume.

    Args:
        scheduler: the search's scheduler.
    """

    def __init__(self, scheduler: SearchScheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401  Tune expects a dictionary, a string or None
        """Return the next trial's number and epoch; None to let Tune ask again later; FINISHED at the search's end."""
        trial = self._scheduler.next_trial()
        if trial:
            return {"number": trial.number, "until": trial.until}
        return Searcher.FINISHED if self._scheduler.is_done else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the callback notifies the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the trials are on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the scheduler reads the trials from disk."""

    def __reduce__(self) -> tuple:
        """Leave the scheduler out of Tune's copy."""
        return Searcher, ()


class SchedulerCallback(Callback):
    """Reports the results and final states of trials to the scheduler.

    Args:
        scheduler: the search's scheduler.
    """

    def __init__(self, scheduler: SearchScheduler) -> None:
        self._scheduler = scheduler

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401
    ) -> None:
        """Add the report of a validation to the trial."""
        self._scheduler.add_report(trial.config["number"], result)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:  # noqa: ANN401
        """Record whether the trial failed, finished, or stopped at a rung."""
        result: Mapping[str, Any] = trial.last_result or {}
        if "failure" in result:
            self._scheduler.end_trial(trial.config["number"], "failed", result["failure"])
        elif result.get("is_complete"):
            reason = result.get("stopped_early")
            self._scheduler.end_trial(trial.config["number"], "finished", f"stopped early: {reason}" if reason else "")
        else:
            self._scheduler.end_trial(trial.config["number"], "stopped")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:  # noqa: ANN401
        """Record that the trial failed, because Tune has used up its restarts; resume it later if memory ran out."""
        error = str(trial.get_error() or "")
        if is_out_of_memory(error):
            self._scheduler.run_out_of_memory(trial.config["number"])
        else:
            self._scheduler.end_trial(trial.config["number"], "failed", last_line(error) or "its process was lost")

    def __reduce__(self) -> tuple:
        """Leave the scheduler out of Tune's copy."""
        return Callback, ()


def run_tuner(fit: Callable[[], object], scheduler: SearchScheduler, show: Callable[[SearchProgress], None]) -> None:
    """Run Tune to its end in a thread, so that this thread can show progress and react to signals.

    Args:
        fit: function that runs Tune to its end.
        scheduler: the search's scheduler.
        show: function that is called with the progress about once a second, and at the end.

    Raises:
        KeyboardInterrupt, SystemExit: the process received SIGINT or SIGTERM.
        Exception: any error that ``fit`` raised.
    """
    failures: list[Exception] = []

    def run() -> None:
        try:
            fit()
        except Exception as error:  # raised again below, in the thread of the caller
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True, name="captioning-tune")
    with listening() as signals:
        thread.start()
        is_running = True
        while is_running:
            thread.join(_SHOW_EVERY_SECONDS)
            is_running = thread.is_alive()  # asked before the progress is, which is that of the end the last time
            show(scheduler.progress())
            if signals:
                scheduler.close()
                stopped = "stopped; run the same command again to resume the trials from their last checkpoints"
                if signals[0] == signal.SIGINT:
                    raise KeyboardInterrupt(stopped)
                logger.warning("%s", stopped)
                raise SystemExit(128 + signals[0])
    if failures:
        raise failures[0]
