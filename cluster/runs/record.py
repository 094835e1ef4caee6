"""Record of a training run, ``run.json``: its identity, and which checkpoints count."""

import contextlib
import fcntl
import json
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from captioning.training.checkpoint_description import DESCRIPTION_NAME
from cluster.config import TrainRun
from cluster.formats import read_record
from cluster.runs.checkpoint_store import CheckpointStore
from shards.storage.files import replace_file

RECORD_NAME = "run.json"
FORMAT_VERSION = 1
VALIDATION_LOSS = "validation_loss_nats"


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedCheckpoint:
    """A checkpoint that counts."""

    step: int
    attempt: int
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the folder's name under ``checkpoints``."""
        return f"step-{self.step:08d}-attempt-{self.attempt}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What a run is and how far it has come."""

    name: str
    identity: dict[str, Any]
    format_version: int = FORMAT_VERSION
    mlflow_run_id: str = ""
    """Empty until MLflow has made the run."""
    key: str = ""
    """Finds the MLflow run again if the driver was killed before it could note the run's id."""
    attempt: int = 0
    """Starts of the worker group, over all drivers."""
    num_starts: int = 0
    """Starts of a driver."""
    is_finished: bool = False
    best_by: str = VALIDATION_LOSS
    """Score that tells which checkpoint is the best: the lowest loss, or the highest of anything else."""
    checkpoints_at: str | None = None
    """Where the checkpoints lie, if not in the run's folder."""
    checkpoints: tuple[CommittedCheckpoint, ...] = ()
    rejected: tuple[str, ...] = ()
    """Names of checkpoints that were found damaged, and stay where they are."""

    @property
    def latest(self) -> CommittedCheckpoint | None:
        """Return the checkpoint to resume from."""
        return max(self.checkpoints, key=lambda checkpoint: checkpoint.step, default=None)

    @property
    def latest_step(self) -> int:
        """Return the step to resume at, 0 for the start."""
        return self.latest.step if self.latest else 0

    @property
    def best(self) -> CommittedCheckpoint | None:
        """Return the checkpoint with the best known score, or the latest if none is known."""
        return min(self._scored(self.checkpoints), key=self._rank, default=self.latest)

    def with_checkpoint(
        self, checkpoint: CommittedCheckpoint, *, keep_best: int, keep_last: int, pinned: Collection[int] = ()
    ) -> "RunRecord":
        """Return the record with one more checkpoint, or a known one with new metrics.

        The k best and the k latest are kept, and those whose steps are pinned because somebody reads them.
        """
        known = [*(known for known in self.checkpoints if known.step != checkpoint.step), checkpoint]
        latest = sorted(known, key=lambda checkpoint: checkpoint.step)[-keep_last:]
        best = sorted(self._scored(known), key=self._rank)[:keep_best]
        kept = {checkpoint.step for checkpoint in [*latest, *best]} | set(pinned)
        ordered = sorted((one for one in known if one.step in kept), key=lambda checkpoint: checkpoint.step)
        return replace(self, checkpoints=tuple(ordered))

    def without(self, checkpoint: CommittedCheckpoint) -> "RunRecord":
        """Return the record without a checkpoint that turned out to be damaged."""
        kept = tuple(one for one in self.checkpoints if one != checkpoint)
        return replace(self, checkpoints=kept, rejected=(*self.rejected, checkpoint.name))

    def _scored(self, checkpoints: Collection[CommittedCheckpoint]) -> list[CommittedCheckpoint]:
        return [checkpoint for checkpoint in checkpoints if self.best_by in checkpoint.metrics]

    def _rank(self, checkpoint: CommittedCheckpoint) -> tuple[float, int]:
        score = checkpoint.metrics[self.best_by]
        return (score if self.best_by == VALIDATION_LOSS else -score), checkpoint.step

    def save(self, folder: Path) -> None:
        """Write the record into the run's folder, whole or not at all."""
        replace_file(folder / RECORD_NAME, self.content())

    def content(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def lock_run(folder: Path) -> TextIO:
    """Lock the run for this process until it ends, however it ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    file = (folder / "driver.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BlockingIOError(f"run {folder.name} has a live driver already; wait for it, or stop it") from None
    return file


def recover_record(run: TrainRun) -> None:
    """Bring back the record of a run whose machine is lost from where its checkpoints lie, unless it is here.

    Raises:
        OSError: the store does not answer.
    """
    if run.storage.checkpoints is None or (run.folder / RECORD_NAME).is_file():
        return
    content = store_of(run.folder, run.storage.checkpoints).get_file(RECORD_NAME)
    if content is not None:
        replace_file(run.folder / RECORD_NAME, content)


def load_record(folder: Path) -> RunRecord | None:
    """Read the record of a run; None if the run has never started.

    Raises:
        Refusal: the record is damaged, or of a format version that this release does not read.
    """
    path = folder / RECORD_NAME
    if not path.is_file():
        return None
    return read_record(RunRecord, path, newest=FORMAT_VERSION, remedy="train under another --name")


def store_of(run_folder: Path, checkpoints_at: str | None) -> CheckpointStore:
    """Return where a run's checkpoints lie: in its own folder, or in a folder of its name at a URL."""
    if checkpoints_at is None:
        return CheckpointStore(str(run_folder.absolute() / "checkpoints"))
    return CheckpointStore(f"{checkpoints_at.rstrip('/')}/{run_folder.name}")


def local_checkpoint(run_folder: Path, record: RunRecord, checkpoint: CommittedCheckpoint) -> Path:
    """Return a folder on this machine with a checkpoint of a run; one that lies elsewhere is copied.

    Raises:
        FileNotFoundError: it is not there.
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
            with contextlib.suppress(OSError):  # another process was quicker
                fetched.rename(kept)
    return kept
