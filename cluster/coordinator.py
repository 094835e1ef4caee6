"""The one process that decides what of a training run counts: which checkpoints, which rows, which attempt.

A named actor on the driver's node that reserves no CPU and ends with the driver. Ranks tell it every moment that they
live and hand it rows and checkpoints; it keeps the journal and ``run.json``, and answers with what it wants of them. A
worker that was cut off and replaced still knows its old attempt's number, by which it is refused.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.attempts import AttemptHistory, Ending, Failure
from cluster.current import CurrentAttempt
from cluster.journal import Journal, Row
from cluster.keeping import RecordKeeper
from cluster.protocol import Answer, Attempt, CoordinatorSettings, Order, Place, Progress
from cluster.runs import CommittedCheckpoint, hold_run, load_record
from cluster.shipping import Shipper
from cluster.watch import Watch, end_with, kill_ranks

logger = logging.getLogger(__name__)

_SILENT_SECONDS = 10.0  # after which a rank is not going to write a checkpoint soon
_LAST_SHIPPING_SECONDS = {"FINISHED": 30.0, "FAILED": 10.0, "KILLED": 1.0}


class Coordinator:
    """Keeps one run's record and journal.

    Args:
        folder: of the run; holds its ``run.json``.
        settings: of the run.
        kill: ends the ranks at these places when one of them hangs.
        end_controller: ends Train's controller when a group does not start.

    Raises:
        BlockingIOError: another live driver has the run.
        ValueError: the folder holds no record.
    """

    def __init__(
        self,
        folder: Path,
        settings: CoordinatorSettings,
        *,
        kill: Callable[[Sequence[Place]], None] = kill_ranks,
        end_controller: Callable[[Any], None] = ray.kill,
    ) -> None:
        self._lock_file = hold_run(folder)
        record = load_record(folder)
        if record is None:
            self._lock_file.close()
            raise ValueError(f"{folder} holds no run.json; the driver writes it first")
        self._settings = settings
        self._deciding = threading.RLock()
        self._journal = Journal(folder / "journal")
        self._keeper = RecordKeeper(
            folder, record, self._journal, keep_best=settings.keep_best, keep_last=settings.keep_last
        )
        self._shipper = Shipper(self._journal, record, settings.tracking_uri)
        self._history = AttemptHistory(settings.max_restarts, settings.max_preemptions)
        self._end_controller = end_controller
        self._watch = Watch(
            self._lose_hung,
            self._lose_start,
            hang_seconds=settings.hang_seconds,
            start_seconds=settings.start_seconds,
            kill=kill,
        )
        self._current = CurrentAttempt(
            self._history, batch_size=settings.batch_size, tell=self.tell, on_end=self._watch.end
        )
        self._events: list[str] = []
        self._row: Row | None = None
        self._num_steps_redone = 0
        self._answer = Answer("go on", 0)
        self._is_stopped = self._is_over = False
        self._places: tuple[Place, ...] = ()
        self._controller: Any = None
        end_with(settings.driver_pid, before=self._journal.flush)

    def begin_attempt(self, places: Sequence[Place] = ()) -> Attempt:
        """Start a new attempt, from the latest checkpoint that counts; earlier attempts are refused from now on.

        Raises:
            PermissionError: there is to be no further attempt.
        """
        with self._deciding:
            if self._current.verdict or self._is_over:
                raise PermissionError("the run is over; there is no further attempt")
            number, latest = self._keeper.begin_attempt(), self._latest
            self._current.begin(latest.step if latest else 0)
            self._places = tuple(places)
            self._watch.begin(places)
            if self._answer.order == "checkpoint":
                self._answer = Answer("go on", self._answer.number)
            if latest or number > 1:
                workers = f" with {len(places)} workers" if places else ""
                self.tell(f"attempt {number} resumes at step {latest.step if latest else 0}{workers}")
            return Attempt(number, latest)

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Take a damaged checkpoint out of the record; return the same attempt from the one before it.

        Raises:
            FileNotFoundError: it is whole, or there is none before it.
        """
        with self._deciding:
            self._require_current(attempt)
            self._keeper.reject(checkpoint)
            latest = self._latest
            self._current.step = latest.step if latest else 0
            self.tell(
                f"checkpoint {checkpoint.name} is damaged ({reason}); the one of step {self._current.step} is used"
            )
            return Attempt(attempt, latest)

    def beat(self, attempt: int, rank: int, progress: int, rows: Sequence[Row] = ()) -> Answer:
        """Take a rank's sign of life with new rows, and say what is wanted of it.

        Args:
            attempt: that the rank belongs to.
            rank: of the group.
            progress: a number that grows as long as the rank gets on.
            rows: of the steps since the last call.
        """
        with self._deciding:
            if not self._is_current(attempt):
                return Answer("leave", 0)
            self._watch.note(rank, progress)
            for row in rows:
                self._add_row(row)
            return self._answer

    def _add_row(self, row: Row) -> None:
        if not self._journal.append(row):
            self._num_steps_redone += 1
        self._row = row
        self._current.step = row.step

    def commit(
        self,
        attempt: int,
        step: int,
        metrics: Mapping[str, float],
        rows: Sequence[Row] = (),
        *,
        awaits_score: bool = False,
    ) -> None:
        """Make a checkpoint count that is completely written.

        Args:
            attempt: that wrote it.
            step: of it.
            metrics: scores that are known.
            rows: of the steps since the last call.
            awaits_score: whether a task is going to score it.

        Raises:
            PermissionError: the attempt is no longer the current one.
        """
        with self._deciding:
            self._require_current(attempt)
            for row in rows:
                self._add_row(row)
            self._keeper.commit(step, metrics, awaits_score=awaits_score)
            self._history.note_checkpoint()
            self.tell(f"checkpoint at step {step}{': ' if metrics else ''}{_shown(metrics)}")
            if self._answer.order == "checkpoint":
                self._answer = Answer("go on", self._answer.number)

    def add_score(self, step: int, metrics: Mapping[str, float]) -> None:
        """Attach a score that became known after its step had passed to the checkpoint of that step."""
        with self._deciding:
            self._keeper.add_score(step, metrics)
            self.tell(f"score of step {step}: {_shown(metrics)}")

    def newest_unscored(self, step: int) -> CommittedCheckpoint | None:
        """Return the checkpoint of a step and keep it until it is scored; None if a newer one waits for its score."""
        with self._deciding:
            return self._keeper.newest_unscored(step)

    def await_score(self, step: int) -> None:
        """Note that a task is going to score the checkpoint of a step."""
        with self._deciding:
            self._keeper.await_score(step)

    def give_up_score(self, step: int, reason: str) -> None:
        """Note that a checkpoint cannot be scored."""
        with self._deciding:
            self._keeper.give_up_score(step)
            self.tell(f"the checkpoint of step {step} has no score: {reason}")

    def expect_group(self, num_workers: int) -> None:
        """Note that a group of ranks is about to start."""
        with self._deciding:
            self._current.expect()
            self._watch.expect()
            self.tell(f"starting {num_workers} workers")

    def watch_start(self, places: Sequence[Place]) -> None:
        """Learn where the ranks of a group are that has just started, of which none may hang before it begins."""
        with self._deciding:
            if self._current.phase == "waiting":
                self._watch.begin(places)

    def fail(self, attempt: int | None, failure: Failure) -> None:
        """Note how a rank failed; if all fail alike, there is no further attempt.

        Args:
            attempt: None if the rank failed before it knew.
            failure: of the rank.
        """
        with self._deciding:
            if attempt in (None, self._keeper.record.attempt):
                self._current.fail(failure)

    def lose(self, exceptions: Mapping[int, tuple[str, bool]]) -> None:
        """Note what Ray says of a group that failed: by rank, a text, and whether the process is gone."""
        with self._deciding:
            self._current.lose(exceptions)

    def make_room(self, num_workers: int) -> int | None:
        """Want a checkpoint before the group gets another size.

        Returns:
            The step of the latest checkpoint now, -1 for none; None if no group trains.
        """
        with self._deciding:
            if self._current.phase != "open":
                return None
            self.tell(f"the group gets another size: {num_workers} workers")
            self._current.leave("resize")
            self.ask("checkpoint")
            return self._latest.step if self._latest else -1

    def has_room(self, before: int) -> bool:
        """Return whether a later checkpoint counts than that of step ``before``, or no group trains any more."""
        with self._deciding:
            latest = self._latest.step if self._latest else -1
            is_gone = self._current.phase != "open" or self._watch.seconds_silent() > _SILENT_SECONDS
            return latest > before or is_gone

    def _lose_hung(self, place: Place, seconds: float) -> None:
        """End the worker group, of which a rank gave no sign of life or got no further."""
        with self._deciding:
            self._current.hang(place, seconds)

    def _lose_start(self, seconds: float) -> None:
        """End Train's controller, which waits for ever for a worker that hangs before it says where it is."""
        with self._deciding:
            if self._current.phase != "waiting" or self._controller is None:
                return
            self.tell(f"the workers did not start within {seconds:.0f} s (--cluster.hang-seconds)")
            controller = self._controller
        self._end_controller(controller)

    def fail_to_start(self, reason: str) -> None:
        """Note that a group failed before it could begin."""
        with self._deciding:
            if self._current.phase == "waiting":
                self._current.crash(f"the workers did not start: {reason}")

    def crash(self, reason: str) -> None:
        """Note that an attempt ended by something else than a rank, such as the death of Train's controller."""
        with self._deciding:
            self._current.crash(reason)

    def leave(self, attempt: int, ending: Ending) -> None:
        """Note that an attempt ends by no fault of its own."""
        with self._deciding:
            if self._is_current(attempt):
                self._current.leave(ending)
                self.tell(f"attempt {attempt} makes room: {ending}")

    def ask(self, order: Order) -> None:
        """Want something of all ranks: a checkpoint, or to stop after one."""
        with self._deciding:
            if self._answer.order != "stop":
                self._answer = Answer(order, self._answer.number + 1)

    def note_stopped(self, attempt: int) -> None:
        """Note that the ranks have stopped, and their last checkpoint counts; from now on none of them can hang."""
        with self._deciding:
            if self._is_current(attempt):
                self._is_stopped = True
                self._watch.end()

    def progress(self, num_events_known: int = 0) -> Progress:
        """Return how far the run is, with the events after those that are known."""
        with self._deciding:
            return Progress(
                self._keeper.record.attempt,
                self._row,
                self._events[num_events_known if num_events_known <= len(self._events) else 0 :],
                len(self._events),
                self._num_steps_redone,
                self._current.verdict,
                self._is_stopped,
                self._latest,
                self._places,
            )

    def attach(self, controller: Any) -> None:  # noqa: ANN401  Ray's handles have no type
        """Learn of the controller of the Train run."""
        self._controller = controller

    def controller(self) -> Any:  # noqa: ANN401  as above
        """Return the controller of the Train run, once it is known."""
        return self._controller

    def finish(self, status: str) -> bool:
        """End the run: FINISHED, FAILED or KILLED; return whether the tracker has everything."""
        with self._deciding:
            self._current.phase, self._is_over = "closed", True
            self._watch.end()
            if status == "FINISHED":
                self._keeper.finish()
        with self._lock_file:
            return self._shipper.finish(status, seconds=_LAST_SHIPPING_SECONDS[status])

    @property
    def _latest(self) -> CommittedCheckpoint | None:
        return self._keeper.record.latest

    def _is_current(self, attempt: int) -> bool:
        return self._current.phase == "open" and attempt == self._keeper.record.attempt

    def _require_current(self, attempt: int) -> None:
        if not self._is_current(attempt):
            raise PermissionError(
                f"attempt {attempt} was replaced by {self._keeper.record.attempt}; its checkpoint does not count"
            )

    def tell(self, event: str) -> None:
        """Note an event for people."""
        logger.info("%s", event)
        self._events.append(event)


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())
