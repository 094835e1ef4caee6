"""The only writer of ``run.json`` and the journal: commits checkpoints, attaches scores, applies retention.

Hold the run's lock.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from captioning.evaluation.health import scores_of
from captioning.training.checkpoint_description import describe_checkpoint
from cluster.errors import Refusal
from cluster.runs.claim import Claim, ClaimLostError
from cluster.runs.journal import Journal, Row
from cluster.runs.pruning import Pruner
from cluster.runs.record import RECORD_NAME, CommittedCheckpoint, RunRecord, load_record, store_of
from cluster.runs.score_history import VALIDATION_LOSS
from shards.storage.files import remove_torn


class RunWriter:
    """Writes ``run.json`` and the journal, and removes the checkpoints that the record does not list.

    Args:
        folder: folder of the run; holds its ``run.json``.
        lock: the run's lock, from ``lock_run``; ``close`` releases it.
        keep_best: number of checkpoints with the best scores to keep.
        keep_last: number of latest checkpoints to keep.
        claim: claim on the run's checkpoints; None if they are in its folder.

    Raises:
        Refusal: the folder holds no record.
    """

    def __init__(
        self, folder: Path, lock: TextIO, *, keep_best: int, keep_last: int, claim: Claim | None = None
    ) -> None:
        record = load_record(folder)
        if record is None:
            lock.close()
            raise Refusal(f"{folder} holds no run.json", "run the same command again to write it")
        self.record = record
        self.journal = Journal(folder / "journal", attempt=record.attempt)
        """The run's journal; flushed before a checkpoint is committed."""
        remove_torn(folder, RECORD_NAME)
        self._folder, self._lock = folder, lock
        self._keep_best, self._keep_last = keep_best, keep_last
        self._store = store_of(folder, record.checkpoints_at)
        self._require_owner = claim.require if claim else lambda: None
        self._pruner = Pruner(folder, record, require_owner=self._require_owner)
        self._unscored: set[int] = set()
        self._pinned: set[int] = set()

    def begin_attempt(self) -> RunRecord:
        """Start a new attempt; return the record with its number."""
        self._change(replace(self.record, attempt=self.record.attempt + 1))
        self.journal.attempt = self.record.attempt
        self._pruner.prune(self.record)
        return self.record

    def reject(self, checkpoint: CommittedCheckpoint) -> None:
        """Remove a damaged checkpoint from the record; its folder is kept for inspection.

        Raises:
            FileNotFoundError: this process finds the checkpoint intact, so the worker that reported it has no access to
                it; or there is no other checkpoint to resume from.
        """
        if self._is_whole(checkpoint):
            raise FileNotFoundError(
                f"checkpoint {checkpoint.name} is intact, but a worker's node cannot read it; "
                "mount the home folder on that node, or fix its access to the checkpoints"
            )
        if len(self.record.checkpoints) < 2:
            raise FileNotFoundError(
                f"checkpoint {checkpoint.name} is damaged, and there is no other checkpoint to resume from; "
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
        """Add a checkpoint of the current attempt to the record, and apply retention.

        Args:
            step: step of the checkpoint.
            metrics: scores that are known so far, by name.
            awaits_score: whether a validation task will score the checkpoint.
        """
        # Before the record: a run that resumes from this checkpoint never computes the rows up to it again.
        self.journal.flush()
        checkpoint = CommittedCheckpoint(step=step, attempt=self.record.attempt, metrics=scores_of(metrics))
        self._keep(self._validated(step, metrics), checkpoint)
        if awaits_score:
            self._unscored.add(step)

    def add_score(self, step: int, metrics: Mapping[str, float]) -> None:
        """Attach a score to the checkpoint of a step that has passed, and add it to the journal."""
        self._unscored.discard(step)
        self._pinned.discard(step)
        self.journal.append_late(Row(step, int(time.time() * 1000), dict(metrics)))
        self.journal.flush()  # before the record: a score in the record is not computed again
        known, validated = self._checkpoint_of(step), self._validated(step, metrics)
        if known:
            self._keep(validated, replace(known, metrics={**known.metrics, **scores_of(metrics)}))
        else:
            self._change(validated)

    def newest_unscored(self, step: int) -> CommittedCheckpoint | None:
        """Return the checkpoint of a step and pin it until it is scored.

        Returns:
            The checkpoint; None if a newer one awaits its score, or if retention has removed this one.
        """
        known = self._checkpoint_of(step)
        if known and step in self._pinned:  # its validation task was killed, and this is the retry
            return known
        is_newest = step == max(self._unscored, default=None)
        self._unscored.discard(step)
        if known is None or not is_newest:
            return None
        self._pinned.add(step)
        return known

    def await_score(self, step: int) -> None:
        """Record that a validation task will score the checkpoint of a step."""
        self._unscored.add(step)

    def give_up_score(self, step: int) -> None:
        """Record that a checkpoint cannot be scored, so it is no longer kept for that."""
        self._unscored.discard(step)
        self._pinned.discard(step)

    def begin_self_critical(self) -> CommittedCheckpoint:
        """Record that self-critical training starts from the best checkpoint, and return that.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        best = self.record.best
        if best is None:
            raise FileNotFoundError(f"{self._folder} has no checkpoint to start self-critical training from")
        scores = self.record.history.from_best().scores
        self._change(replace(self.record, self_critical_from=best.step, scores=scores))
        return best

    def stop_early(self, reason: str) -> None:
        """Record why the run ends before its last step; the first reason stays."""
        if not self.record.stopped_early:
            self._change(replace(self.record, stopped_early=reason))

    def finish(self) -> None:
        """Mark the run as finished."""
        self.journal.flush()
        self._change(replace(self.record, is_finished=True))

    def is_disowned(self) -> bool:
        """Return whether another home folder owns the checkpoints now, and with them the run."""
        try:
            self._require_owner()
        except ClaimLostError:
            return True
        except OSError:  # unknown
            return False
        return False

    def close(self) -> None:
        """Release the run's lock."""
        self._lock.close()

    def _checkpoint_of(self, step: int) -> CommittedCheckpoint | None:
        return next((one for one in self.record.checkpoints if one.step == step), None)

    def _validated(self, step: int, metrics: Mapping[str, float]) -> RunRecord:
        """Return the record with a validation, if there was one; once the run ends early, its scores stay."""
        record, score = self.record, metrics.get(self.record.best_by)
        if not metrics:
            return record
        if score is not None and not record.stopped_early:
            record = replace(record, scores=record.history.add(step, score).scores)
        # The loss of people's captions rises in self-critical training, which teaches the model to say what scores.
        ignored = VALIDATION_LOSS if record.self_critical_from is not None else ""
        judged = {name: value for name, value in metrics.items() if name != ignored}
        return replace(record, health=record.health.add(step, judged))

    def _keep(self, record: RunRecord, checkpoint: CommittedCheckpoint) -> None:
        grown = record.with_checkpoint(
            checkpoint, keep_best=self._keep_best, keep_last=self._keep_last, pinned=self._pinned
        )
        self._change(grown)
        self._pruner.prune(grown)

    def _change(self, record: RunRecord) -> None:
        record.save(self._folder)
        self.record = record
