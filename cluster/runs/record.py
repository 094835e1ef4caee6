"""Record of a training run, ``run.json``: its identity, and its committed checkpoints."""

import contextlib
import json
import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from captioning.config import NEWEST_ARITHMETIC
from captioning.evaluation.health import Health
from captioning.training.checkpoint_description import DESCRIPTION_NAME
from cluster.config import TrainRun
from cluster.formats import read_record
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.score_history import VALIDATION_LOSS, ScoreHistory, as_cost
from shards.storage.document import adapter_of
from shards.storage.files import replace_file
from shards.storage.lock import lock_file, sole_writer

logger = logging.getLogger(__name__)

RECORD_NAME = "run.json"
FORMAT_VERSION = 3
_OF_MOST_RUNS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedCheckpoint:
    """A checkpoint that the record lists: it is complete in the store, and the run may resume from it."""

    step: int
    attempt: int
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the folder's name under ``checkpoints``."""
        return f"step-{self.step:08d}-attempt-{self.attempt}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """Identity and progress of a run."""

    name: str
    identity: dict[str, Any]
    format_version: int = _OF_MOST_RUNS
    """Version of the record, and with it of the order of computation; see ``format_version_of``."""
    mlflow_run_id: str = ""
    """Id of the MLflow run; empty until it is created."""
    key: str = ""
    """Unique tag of the MLflow run; finds it again if the driver was killed before it saved the run's id."""
    attempt: int = 0
    """Number of the current attempt: starts of the worker group, counted over all drivers."""
    num_starts: int = 0
    """Number of starts of a driver."""
    is_finished: bool = False
    best_by: str = VALIDATION_LOSS
    """Score that selects the best checkpoint: the lowest validation loss, or the highest value of any other score."""
    checkpoints_at: str | None = None
    """URL of the checkpoints; None if they are in the run's folder."""
    checkpoints: tuple[CommittedCheckpoint, ...] = ()
    self_critical_from: int | None = None
    """Step of the checkpoint that self-critical training started from; None before it starts."""
    rejected: tuple[str, ...] = ()
    """Names of damaged checkpoints; their folders are kept."""
    scores: tuple[tuple[int, float], ...] = ()
    """Step and score of each validation from the best one on, as in ``ScoreHistory``."""
    health: Health = field(default_factory=Health)
    """What the validations so far say of the run's health."""
    stopped_early: str = ""
    """Why the run ended before its last step, as a phrase; empty if it did not."""

    @property
    def arithmetic(self) -> int:
        """Return the version of the order in which the run computes; a run of an earlier release keeps its bits."""
        return min(self.format_version, NEWEST_ARITHMETIC)

    @property
    def history(self) -> ScoreHistory:
        """Return the validations from the best one on."""
        return ScoreHistory(self.best_by, self.scores)

    @property
    def latest(self) -> CommittedCheckpoint | None:
        """Return the checkpoint to resume from."""
        return max(self.checkpoints, key=lambda checkpoint: checkpoint.step, default=None)

    @property
    def latest_step(self) -> int:
        """Return the step to resume at; 0 without a checkpoint."""
        return self.latest.step if self.latest else 0

    @property
    def best(self) -> CommittedCheckpoint | None:
        """Return the checkpoint with the best known score, or the latest if none is known."""
        return min(self._scored(self.checkpoints), key=self._rank, default=self.latest)

    def with_checkpoint(
        self, checkpoint: CommittedCheckpoint, *, keep_best: int, keep_last: int, pinned: Collection[int] = ()
    ) -> "RunRecord":
        """Return the record with one more checkpoint, or with new metrics for a known one.

        Args:
            checkpoint: the checkpoint; replaces the one of the same step, if there is one.
            keep_best: number of checkpoints with the best scores to keep.
            keep_last: number of latest checkpoints to keep.
            pinned: steps of further checkpoints to keep, because a task is reading them.
        """
        known = [*(known for known in self.checkpoints if known.step != checkpoint.step), checkpoint]
        latest = sorted(known, key=lambda checkpoint: checkpoint.step)[-keep_last:]
        best = sorted(self._scored(known), key=self._rank)[:keep_best]
        kept = {checkpoint.step for checkpoint in [*latest, *best]} | set(pinned)
        ordered = sorted((one for one in known if one.step in kept), key=lambda checkpoint: checkpoint.step)
        return replace(self, checkpoints=tuple(ordered))

    def without(self, checkpoint: CommittedCheckpoint) -> "RunRecord":
        """Return the record without a damaged checkpoint, which is listed as rejected instead."""
        kept = tuple(one for one in self.checkpoints if one != checkpoint)
        return replace(self, checkpoints=kept, rejected=(*self.rejected, checkpoint.name))

    def _scored(self, checkpoints: Collection[CommittedCheckpoint]) -> list[CommittedCheckpoint]:
        return [checkpoint for checkpoint in checkpoints if self.best_by in checkpoint.metrics]

    def _rank(self, checkpoint: CommittedCheckpoint) -> tuple[float, int]:
        # The smaller, the better; of two equal scores, the earlier step wins.
        return as_cost(checkpoint.metrics[self.best_by], self.best_by), checkpoint.step

    def save(self, folder: Path) -> None:
        """Write the record into the run's folder, atomically."""
        replace_file(folder / RECORD_NAME, self.content())

    def content(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def format_version_of(run: TrainRun) -> int:
    """Return the format version of a new run's record: that of the earliest release that computes the same."""
    is_delayed = run.model.trainable_from is not None and run.optimizer.encoder_delay_steps > 0
    return FORMAT_VERSION if is_delayed else _OF_MOST_RUNS


def lock_run(folder: Path, *, driver_pid: int | None = None) -> TextIO:
    """Lock a run for this process; return the open file that holds the lock.

    The lock lasts until the file is closed or the process ends, even by SIGKILL.

    Args:
        folder: folder of the run.
        driver_pid: id of the process to name to others, on this machine; this process's if None.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    try:
        return lock_file(folder / "driver.lock", pid=driver_pid)
    except BlockingIOError as error:
        raise _driven(folder, error) from None


@contextmanager
def driving(folder: Path) -> Iterator[None]:
    """Be the only driver of a run, in its home folder.

    Raises:
        BlockingIOError: another process drives the run.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(folder, waits=False))
        except BlockingIOError as error:
            raise _driven(folder, error) from None
        yield


def _driven(folder: Path, holder: BlockingIOError) -> BlockingIOError:
    return BlockingIOError(f"run {folder.name} has a live driver already, {holder}; wait for it, or stop it")


def recover_record(run: TrainRun) -> None:
    """Restore a record from the copy beside the run's remote checkpoints, such as after the loss of a machine.

    A record that is here is replaced if the run went on in another home folder since.

    Raises:
        OSError: the store does not answer.
        Refusal: the record that is here is damaged.
    """
    if run.storage.checkpoints is None:
        return
    content = store_of(run.folder, run.storage.checkpoints).get_file(RECORD_NAME)
    known = load_record(run.folder)
    if content is None or (known and not _is_newer(content, known)):
        return
    if known:
        logger.warning("run %s went on in another home folder since; resuming from its record", run.name)
    replace_file(run.folder / RECORD_NAME, content)


def _is_newer(content: bytes, known: RunRecord) -> bool:
    """Return whether another home folder has begun an attempt or committed a checkpoint since."""
    try:
        copy = adapter_of(RunRecord).validate_json(content)
    except ValidationError:
        return False
    return _progress(copy) > _progress(known)


def _progress(record: RunRecord) -> tuple[int, int, int]:
    return record.num_starts, record.attempt, record.latest_step


def load_record(folder: Path) -> RunRecord | None:
    """Read the record of a run; return None if the run has never started.

    Raises:
        Refusal: the record is damaged, or has a format version that this release does not read.
    """
    path = folder / RECORD_NAME
    if not path.is_file():
        return None
    return read_record(RunRecord, path, newest=FORMAT_VERSION, remedy="train under another --name")


def store_of(run_folder: Path, checkpoints_at: str | None) -> CheckpointStore:
    """Return the store of a run's checkpoints: in the run's folder, or in a folder with its name at a URL."""
    if checkpoints_at is None:
        return CheckpointStore(str(run_folder.absolute() / "checkpoints"))
    return CheckpointStore(f"{checkpoints_at.rstrip('/')}/{run_folder.name}")


def local_checkpoint(run_folder: Path, record: RunRecord, checkpoint: CommittedCheckpoint) -> Path:
    """Return a folder on this machine with a checkpoint of a run; a remote one is copied into the run's folder first.

    Raises:
        FileNotFoundError: the store has no such checkpoint.
        OSError: the store does not answer.
    """
    store = store_of(run_folder, record.checkpoints_at)
    if store.is_local:
        return store.fetch(checkpoint.name, run_folder)
    kept = run_folder / "fetched" / checkpoint.name
    if not (kept / DESCRIPTION_NAME).is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            fetched = store.fetch(checkpoint.name, Path(scratch))
            with contextlib.suppress(OSError):  # another process has already copied it
                fetched.rename(kept)
    return kept
