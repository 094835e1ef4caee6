"""The only writer of ``run.json`` and the journal: commits checkpoints, attaches scores, applies retention.

Hold the run's lock.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from captioning.training.checkpoint_description import describe_checkpoint
from cluster.errors import Refusal
from cluster.runs.journal import Journal, Row
from cluster.runs.pruning import Pruner
from cluster.runs.record import RECORD_NAME, CommittedCheckpoint, RunRecord, load_record, store_of
from shards.storage.files import remove_torn


class RunWriter:
    """Keeps ``run.json`` and the journal, and beside them only the checkpoints that the record names.

    Args:
        folder: folder of the run; holds its ``run.json``.
        lock: lock of the run, from ``lock_run``.
        keep_best: number of checkpoints of the best score to keep.
        keep_last: number of latest checkpoints to keep.

    Raises:
        Refusal: the folder holds no record.
    """

    def __init__(self, folder: Path, lock: TextIO, *, keep_best: int, keep_last: int) -> None:
        record = load_record(folder)
        if record is None:
            lock.close()
            raise Refusal(f"{folder} holds no run.json", "whoever starts the run writes it first")
        self.record = record
        self.journal = Journal(folder / "journal")
        """On disk before a checkpoint counts."""
        remove_torn(folder, RECORD_NAME)
        self._folder, self._lock = folder, lock
        self._keep_best, self._keep_last = keep_best, keep_last
        self._store = store_of(folder, record.checkpoints_at)
        self._pruner = Pruner(folder, record)
        self._unscored: set[int] = set()
        self._pinned: set[int] = set()

    def begin_attempt(self) -> RunRecord:
        """Count a new attempt; return the record, which has its number."""
        self._change(replace(self.record, attempt=self.record.attempt + 1))
        self._pruner.prune(self.record)
        return self.record

    def reject(self, checkpoint: CommittedCheckpoint) -> None:
        """Take a damaged checkpoint out of the record; its folder stays, for people to look at.

        Raises:
            FileNotFoundError: from here it is whole, so that whoever finds it damaged does not see it; or there is no
                other to resume from.
        """
        if self._is_whole(checkpoint):
            raise FileNotFoundError(
                f"checkpoint {checkpoint.name} is whole, but a worker's node does not see it so; "
                "mount the home folder there, or mend its access to the checkpoints"
            )
        if len(self.record.checkpoints) < 2:
            raise FileNotFoundError(
                f"checkpoint {checkpoint.name} is damaged, and there is no other to resume from; "
                "restore its folder from a copy, or train under another --name"
            )
        self._change(self.record.without(checkpoint))

    def _is_whole(self, checkpoint: CommittedCheckpoint) -> bool:
        with tempfile.TemporaryDirectory(prefix="check-") as scratch:
            try:
                describe_checkpoint(self._store.fetch(checkpoint.name, Path(scratch)), for_training=True)
            except (ValueError, FileNotFoundError):
                return False
        return True

    def commit(self, step: int, metrics: Mapping[str, float], *, awaits_score: bool) -> None:
        """Make a checkpoint of the current attempt count.

        Args:
            step: step of the checkpoint.
            metrics: scores that are known.
            awaits_score: whether a task is going to score it.
        """
        self.journal.flush()
        self._keep(CommittedCheckpoint(step=step, attempt=self.record.attempt, metrics=dict(metrics)))
        if awaits_score:
            self._unscored.add(step)

    def add_score(self, step: int, metrics: Mapping[str, float]) -> None:
        """Attach a score that became known after its step had passed to the checkpoint of that step."""
        self._unscored.discard(step)
        self._pinned.discard(step)
        self.journal.append_late(Row(step, int(time.time() * 1000), dict(metrics)))
        self.journal.flush()  # once the record has the score, nobody computes it again
        known = self._checkpoint_of(step)
        if known:
            self._keep(replace(known, metrics={**known.metrics, **metrics}))

    def newest_unscored(self, step: int) -> CommittedCheckpoint | None:
        """Return the checkpoint of a step and keep it until it is scored; None if a newer one waits for its score."""
        known = self._checkpoint_of(step)
        if known and step in self._pinned:  # its task was killed, and is tried again
            return known
        is_newest = step == max(self._unscored, default=None)
        self._unscored.discard(step)
        if known is None or not is_newest:
            return None
        self._pinned.add(step)
        return known

    def await_score(self, step: int) -> None:
        """Note that a task is going to score the checkpoint of a step."""
        self._unscored.add(step)

    def give_up_score(self, step: int) -> None:
        """Note that a checkpoint cannot be scored, and need not be kept for that."""
        self._unscored.discard(step)
        self._pinned.discard(step)

    def finish(self) -> None:
        """Note that the run has come to its end."""
        self.journal.flush()
        self._change(replace(self.record, is_finished=True))

    def close(self) -> None:
        """Release the run's lock."""
        self._lock.close()

    def _checkpoint_of(self, step: int) -> CommittedCheckpoint | None:
        return next((one for one in self.record.checkpoints if one.step == step), None)

    def _keep(self, checkpoint: CommittedCheckpoint) -> None:
        grown = self.record.with_checkpoint(
            checkpoint, keep_best=self._keep_best, keep_last=self._keep_last, pinned=self._pinned
        )
        self._change(grown)
        self._pruner.prune(grown)

    def _change(self, record: RunRecord) -> None:
        record.save(self._folder)
        self.record = record
