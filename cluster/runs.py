"""A training run's own record, ``run.json``: its identity, and which checkpoints count."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from captioning.weights import weights_identity
from cluster.config import TrainRun
from shards.files import replace_file
from shards.manifest import Manifest

RECORD_NAME = "run.json"
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
    mlflow_run_id: str = ""
    """Empty until MLflow has made the run."""
    key: str = ""
    """Finds the MLflow run again if the driver was killed before it could note the run's id."""
    attempt: int = 0
    """Starts of the worker group, over all drivers."""
    num_starts: int = 0
    """Starts of a driver."""
    is_finished: bool = False
    checkpoints: tuple[CommittedCheckpoint, ...] = ()

    @property
    def latest(self) -> CommittedCheckpoint | None:
        """Return the checkpoint to resume from."""
        return max(self.checkpoints, key=lambda checkpoint: checkpoint.step, default=None)

    @property
    def best(self) -> CommittedCheckpoint | None:
        """Return the checkpoint with the lowest known validation loss, or the latest if none is known."""
        scored = [checkpoint for checkpoint in self.checkpoints if VALIDATION_LOSS in checkpoint.metrics]
        return min(scored, key=_rank_of, default=self.latest)

    def with_checkpoint(self, checkpoint: CommittedCheckpoint, *, keep_best: int, keep_last: int) -> "RunRecord":
        """Return the record with one more checkpoint, of which the k best and the k latest are kept."""
        known = [*(known for known in self.checkpoints if known.step != checkpoint.step), checkpoint]
        latest = sorted(known, key=lambda checkpoint: checkpoint.step)[-keep_last:]
        scored = [checkpoint for checkpoint in known if VALIDATION_LOSS in checkpoint.metrics]
        kept = {checkpoint.step for checkpoint in [*latest, *sorted(scored, key=_rank_of)[:keep_best]]}
        ordered = sorted((one for one in known if one.step in kept), key=lambda checkpoint: checkpoint.step)
        return replace(self, checkpoints=tuple(ordered))

    def save(self, folder: Path) -> None:
        """Write the record into the run's folder, whole or not at all."""
        replace_file(folder / RECORD_NAME, json.dumps(asdict(self), indent=1).encode() + b"\n")


def _rank_of(checkpoint: CommittedCheckpoint) -> tuple[float, int]:
    return checkpoint.metrics[VALIDATION_LOSS], checkpoint.step


def load_record(folder: Path) -> RunRecord | None:
    """Read the record of a run; None if the run has never started.

    Raises:
        ValueError: the record is damaged.
    """
    path = folder / RECORD_NAME
    if not path.is_file():
        return None
    try:
        return TypeAdapter(RunRecord).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}); train under another --name") from None


def checkpoint_folder(run_folder: Path, checkpoint: CommittedCheckpoint) -> Path:
    """Return where a checkpoint of a run lies."""
    return run_folder / "checkpoints" / checkpoint.name


def remove_uncounted(run_folder: Path, record: RunRecord) -> None:
    """Remove checkpoint folders that no longer count, of this attempt and earlier ones."""
    counted = {checkpoint.name for checkpoint in record.checkpoints}
    for folder in (run_folder / "checkpoints").glob("step-*"):
        if folder.name not in counted:
            shutil.rmtree(folder, ignore_errors=True)


def identity_of(run: TrainRun, manifest: Manifest) -> dict[str, Any]:
    """Return what decides about the trained weights, flat: model, optimizer, training and the digests of the data."""
    model = asdict(run.model) | {"weights": weights_identity(run.model.weights)}
    nested = {"model": model, "optimizer": asdict(run.optimizer), "training": asdict(run.training)}
    for name in ("keep_best", "keep_last"):  # what is kept of a run decides nothing about its weights
        del nested["training"][name]
    flat = {f"{section}.{name}": value for section, values in nested.items() for name, value in values.items()}
    return flat | {
        "data.shards": manifest.digest,
        "data.vocabulary": manifest.vocabulary_digest,
        "data.train_split": run.train_split,
        "data.validation_split": run.validation_split,
    }


def check_identity(record: RunRecord, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings.

    Raises:
        ValueError: the identity differs; the message names the differences.
    """
    names = sorted({*record.identity, *identity})
    changes = [
        f"{name} {record.identity.get(name)!r} -> {identity.get(name)!r}"
        for name in names
        if record.identity.get(name) != identity.get(name)
    ]
    if changes:
        raise ValueError(
            f"run {record.name} was started with other settings ({'; '.join(changes)}); "
            "restore them, or choose another --name"
        )
