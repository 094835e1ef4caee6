"""What a run has reached: its record and journal on disk, its scores and health in the tracker, and its log lines.

The coordinator alone changes it, on behalf of the ranks and the validation tasks, and decides whose calls still count.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from captioning.evaluation.health import Health, changes, scores_of
from cluster.coordination.event_log import EventLog
from cluster.coordination.messages import CoordinatorSettings, metrics_text, workers_text
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint, RunRecord, lock_run
from cluster.runs.writer import RunWriter
from cluster.tracking.metric_logging import HEALTH_TAG, Shipper, end_tags


class RunState:
    """Record, journal, tracker and log of a run, changed together; holds the run's lock until ``finish``.

    Args:
        folder: folder of the run; holds its ``run.json``.
        settings: settings of the coordinator.
        clock: monotonic clock, in seconds.

    Raises:
        BlockingIOError: another live driver holds the run's lock.
        ValueError: the folder holds no ``run.json``.
    """

    def __init__(self, folder: Path, settings: CoordinatorSettings, clock: Callable[[], float]) -> None:
        lock = lock_run(folder, driver_pid=settings.driver_pid)
        self.writer = RunWriter(
            folder, lock, keep_best=settings.keep_best, keep_last=settings.keep_last, claim=settings.claim
        )
        self.events = EventLog(clock)
        self.row: Row | None = None
        """Metrics of the latest step."""
        self.validated: CommittedCheckpoint | None = None
        """Checkpoint with the latest scores."""
        self.num_steps_redone = 0
        """Number of steps that were computed again after a restart."""
        self._stop_after = settings.stop_after
        self._shipper = Shipper(self.writer.journal, self.record, settings.tracking_uri)

    @property
    def record(self) -> RunRecord:
        """The record, as it is on disk."""
        return self.writer.record

    def begin_attempt(self, num_workers: int) -> RunRecord:
        """Begin an attempt of a number of workers, 0 if it is unknown; return the record with the attempt's number."""
        record = self.writer.begin_attempt()
        if record.latest or record.attempt > 1:
            group = f" with {workers_text(num_workers)}" if num_workers else ""
            self.events.log(f"attempt {record.attempt} resumes at step {record.latest_step}{group}")
        elif num_workers:
            self.events.log(f"{workers_text(num_workers)} started; loading weights")
        return record

    def reject(self, checkpoint: CommittedCheckpoint, reason: str) -> RunRecord:
        """Remove a checkpoint from the record, which is damaged for a reason; return the record without it.

        Raises:
            FileNotFoundError: the checkpoint is intact on this node, or no other checkpoint is left.
        """
        self.writer.reject(checkpoint)
        step = self.record.latest_step
        self.events.log(f"checkpoint {checkpoint.name} is damaged ({reason}); using the checkpoint at step {step}")
        return self.record

    def begin_self_critical(self) -> CommittedCheckpoint:
        """Record that self-critical training starts from the best checkpoint, and return that.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        best = self.writer.begin_self_critical()
        self.events.log(f"self-critical training starts from the checkpoint at step {best.step}")
        return best

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Journal the metrics of steps; those of a step that the journal has are counted instead."""
        for row in rows:
            self.num_steps_redone += not self.writer.journal.append(row)
            self.row = row

    def commit(self, step: int, metrics: Mapping[str, float], *, awaits_score: bool, is_requested: bool) -> None:
        """Commit a checkpoint, and log it: at once if it is the best so far or was requested.

        Args:
            step: number of steps done in the checkpoint.
            metrics: known scores of the checkpoint, by name.
            awaits_score: whether a validation task will score the checkpoint later.
            is_requested: whether the checkpoint was requested.
        """
        health = self.record.health
        self.writer.commit(step, metrics, awaits_score=awaits_score)
        self._note_health(health)
        self._note_scores(step, metrics)
        best = self.record.best
        is_best = bool(metrics) and best is not None and best.step == step
        self.events.log_checkpoint(step, metrics, at_once=is_best or is_requested)

    def add_score(self, step: int, metrics: Mapping[str, float]) -> str:
        """Attach scores to the checkpoint of an earlier step; return why the run should stop early, or no text."""
        health = self.record.health
        self.writer.add_score(step, metrics)
        self._note_health(health)
        self._note_scores(step, metrics)
        self.events.log(f"scores of the checkpoint at step {step}: {metrics_text(scores_of(metrics))}")
        return self.record.history.stop_reason(self._stop_after)

    def give_up_score(self, step: int, reason: str) -> None:
        """Record that a checkpoint cannot be scored."""
        self.writer.give_up_score(step)
        self.events.log(f"the checkpoint at step {step} could not be scored: {reason}")

    def stop_early(self, reason: str) -> None:
        """Record and log why the run ends before its last step."""
        self.writer.stop_early(reason)
        self.events.log(f"stopping early: {reason}")

    def finish(self, status: str) -> bool:
        """End the run with status FINISHED, FAILED or KILLED; return whether the tracker has all rows."""
        if status == "FINISHED":
            self.writer.finish()
        with closing(self.writer):
            if status == "FAILED" and self.writer.is_disowned():
                return False  # the status in MLflow is the new owner's
            return self._shipper.finish(status, end_tags(self.record))

    def _note_health(self, before: Health) -> None:
        for line in changes(before, self.record.health):
            self.events.log(line)
        if before.told() != (told := self.record.health.told()):
            self._shipper.set_tag(HEALTH_TAG, "; ".join(told.values()))

    def _note_scores(self, step: int, metrics: Mapping[str, float]) -> None:
        if metrics:
            self.validated = CommittedCheckpoint(step=step, attempt=self.record.attempt, metrics=scores_of(metrics))
