"""Configuration of a whole training run: its cluster, storage, tracking and model. Imports no torch, Ray or MLflow."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from captioning.bounds import outside, raise_mistakes, too_large
from captioning.config import BEAM_SIZES, ModelConfig, OptimizerConfig, TrainingConfig
from cluster.locations import OptionalLocation
from cluster.settings import LONGEST_NAME, credential_mistakes, is_name, parse_range
from shards.storage.cache import DEFAULT_CACHE_GIB

EMBEDDED_TRACKER = "mlflow.db"
"""Name of the embedded tracker's database in the home folder."""
_MOST_WORKERS, _MOST_LOADER_PROCESSES, _LONGEST_WAIT_SECONDS = 100_000, 10_000, 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig:
    """The Ray cluster and the resources of this run."""

    address: str | None = None
    """Address of a Ray cluster: host:port, or auto for one on this machine. The default is RAY_ADDRESS; without it,
    an embedded cluster starts on this machine."""
    num_workers: Annotated[int | str, tyro.conf.arg(metavar="N|MIN:MAX")] = 2
    """Training processes, one rank each; MIN:MAX uses as many as fit, and resizes as the cluster changes."""
    use_gpu: bool = False
    """Train on one GPU per worker (NCCL); otherwise on CPUs (Gloo)."""
    cpus_per_worker: int = 1
    """CPUs reserved for each worker, and the number of its compute threads."""
    resources_per_worker: dict[str, float] = field(default_factory=dict)
    """Additional Ray resources for each worker, such as accelerator_type:H100 0.001."""
    num_loader_processes: int | None = None
    """Processes that read and decode images for each worker; with 0, the worker does it itself. If not given, it
    measures its first steps: if reading limits their speed, as many processes read ahead as keep up, at most
    cpus_per_worker - 1."""
    max_restarts: int = 3
    """Consecutive failures, without a new checkpoint in between, after which training still restarts."""
    max_preemptions: int = 100
    """Preemptions of nodes after which training still restarts; they do not count as failures."""
    hang_seconds: float = 600.0
    """Time without progress, in seconds, after which a worker counts as hung and all workers restart."""
    resize_seconds: float = 60.0
    """Seconds between two checks of how many workers fit on the cluster, for MIN:MAX workers."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        yield from credential_mistakes(self)
        if self.min_workers < 1:
            yield f"num_workers {self.num_workers} is not a number of workers; use N, or MIN:MAX such as 1:4, from 1 on"
        if self.cpus_per_worker < 1:
            yield f"cpus_per_worker {self.cpus_per_worker} cannot train; use 1 or more"
        if not all(0 < amount < math.inf for amount in self.resources_per_worker.values()):
            yield f"resources_per_worker {self.resources_per_worker} reserves nothing; use finite amounts above 0"
        if self.max_workers > _MOST_WORKERS:
            yield f"num_workers {self.num_workers} is too large; use at most {_MOST_WORKERS}"
        yield from too_large(self, cpus_per_worker=10_000)
        if not 0 <= (self.num_loader_processes or 0) <= _MOST_LOADER_PROCESSES:
            yield f"num_loader_processes {self.num_loader_processes} is not from 0 to {_MOST_LOADER_PROCESSES}"
        yield from too_large(self, hang_seconds=_LONGEST_WAIT_SECONDS, resize_seconds=_LONGEST_WAIT_SECONDS)
        for name in ("max_restarts", "max_preemptions"):
            if getattr(self, name) < 0:
                yield f"{name} {getattr(self, name)} is negative; use 0 or more"
        for name in ("hang_seconds", "resize_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                yield f"{name} {getattr(self, name)} is not a time to wait; use a number above 0"

    @property
    def min_workers(self) -> int:
        """Return the smallest number of workers that may train."""
        return self._bounds()[0]

    @property
    def max_workers(self) -> int:
        """Return the largest number of workers that may train."""
        return self._bounds()[1]

    @property
    def is_elastic(self) -> bool:
        """Return whether the number of workers changes with the cluster's capacity."""
        return ":" in str(self.num_workers)

    @property
    def workers_text(self) -> str:
        """Return the number of workers as text, such as 1 worker or 2 to 8 workers."""
        if self.is_elastic:
            return f"{self.min_workers} to {self.max_workers} workers"
        return f"{self.max_workers} worker{'' if self.max_workers == 1 else 's'}"

    def _bounds(self) -> tuple[int, int]:
        return parse_range(str(self.num_workers)) or (0, 0)  # which is refused


@dataclass(frozen=True, kw_only=True, slots=True)
class HomeConfig:
    """Where results are stored."""

    home: Annotated[Path, tyro.conf.arg(prefix_name=False)] = field(
        default_factory=lambda: Path(os.environ.get("CAPTIONING_HOME") or "runs")
    )
    """Folder of the default tracking database, artifacts and checkpoints (or CAPTIONING_HOME); every node must be able
    to read and write it."""

    def __post_init__(self) -> None:
        """Check that no file is in the folder's place."""
        if self.home.is_file():
            raise ValueError(f"home {self.home} is a file; use a folder")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig(HomeConfig):
    """Where results are stored, and the cache of shards."""

    cache_gib: float = DEFAULT_CACHE_GIB
    """Size limit, in GiB, of a node's cache of remote shards, ~/.cache/captioning/shards (or CAPTIONING_CACHE)."""

    def __post_init__(self) -> None:
        """Check the home folder and the bounds."""
        HomeConfig.__post_init__(self)  # dataclasses with slots have no super()
        if not 0 < self.cache_gib < math.inf:
            raise ValueError(
                f"cache_gib {self.cache_gib} is too small for a shard, or not finite; use a number above 0"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig(CacheConfig):
    """Where results and checkpoints are stored."""

    checkpoints: str | None = None
    """Location of the checkpoints: any URL that fsspec reaches, such as s3://bucket/folder. If not given, the home
    folder."""
    take_over: bool = False
    """Take the checkpoints at a URL over from another home folder, even if it seems to be training the run."""
    ledger: bool = False
    """Record which samples every worker trained on, in the folder ledger of the run."""

    def __post_init__(self) -> None:
        """Check the addresses and the bounds."""
        CacheConfig.__post_init__(self)
        raise_mistakes(credential_mistakes(self))
        if self.take_over and self.checkpoints is None:
            raise ValueError("take_over does nothing without checkpoints at a URL; leave it out, or use --checkpoints")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """How checkpoints are validated."""

    where: Literal["workers", "beside"] = "workers"
    """workers: training pauses while all workers compute the validation loss; beside: a task on free resources computes
    the loss and generates captions while training continues."""
    best_by: Literal["validation_loss_nats", "validation_cider_d"] = "validation_loss_nats"
    """Score that selects the best checkpoints; CIDEr-D captions the whole split at every validation."""
    beam_size: int = 3
    """Beam size when captions are generated."""
    stop_after: int = 0
    """Validations in a row without a better score (--validation.best-by) after which training stops early; 0 trains to
    the last step. With a larger number, the same command trains on."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(outside(self, beam_size=BEAM_SIZES, stop_after=(0, 1_000)))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerConfig:
    """The MLflow tracker and registry."""

    uri: str | None = None
    """Address of an MLflow server or database. The default is MLFLOW_TRACKING_URI; without it, a database in the home
    folder."""

    def __post_init__(self) -> None:
        """Check the address."""
        raise_mistakes(credential_mistakes(self))

    def may_exist(self, home: Path) -> bool:
        """Return whether there may be a tracker to use: one is named, or the home folder has the embedded one."""
        named = self.uri or os.environ.get("MLFLOW_TRACKING_URI", "").strip()
        return bool(named) or (home / EMBEDDED_TRACKER).exists()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingConfig(TrackerConfig):
    """The MLflow tracker and registry, and the experiment of new runs."""

    experiment: str = "captioning"
    """Name of the MLflow experiment."""

    def __post_init__(self) -> None:
        """Check the address and the name."""
        TrackerConfig.__post_init__(self)  # dataclasses with slots have no super()
        if not 0 < len(self.experiment) <= LONGEST_NAME:
            raise ValueError(f"experiment has a name of {len(self.experiment)} characters; use 1 to {LONGEST_NAME}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRun:
    """A whole training run."""

    name: Annotated[str, tyro.conf.arg(prefix_name=False)] = "train"
    """Name of the run; starting the same name again resumes it."""
    shards: Annotated[OptionalLocation, tyro.conf.arg(prefix_name=False)] = None
    """The shard set: a folder, or any URL that fsspec reaches, such as s3://bucket/folder. It must be given."""
    features: Annotated[OptionalLocation, tyro.conf.arg(prefix_name=False)] = None
    """A feature set extracted from these shards (captioning extract), which workers read instead of images: the encoder
    does not run, and the feature set's views replace --training.crop-area and --training.flip. Without it, workers read
    the images."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str = "val"
    """Split to validate on; its score selects the best checkpoints."""
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Check the name, the addresses and the relations between parts."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        yield from credential_mistakes(self)
        if not is_name(self.name):
            yield (
                f"name {self.name!r:.60} cannot be a folder's name; use letters, digits, periods, "
                f"dashes and underscores, at most {LONGEST_NAME} characters"
            )
        if 0 < self.training.batch_size < self.cluster.max_workers:
            yield (
                f"a batch of {self.training.batch_size} images leaves some of {self.cluster.max_workers} workers "
                "without any; use fewer workers or a larger --training.batch-size"
            )
        if self.features and self.model.trainable_from:
            yield (
                f"the encoder trains from {self.model.trainable_from} on, so its features change with every step; "
                "leave out --features or --model.trainable-from"
            )
        if self.training.self_critical_epochs:
            yield from self._self_critical_mistakes()

    def _self_critical_mistakes(self) -> Iterator[str]:
        if self.validation.best_by != "validation_cider_d":
            yield (
                f"checkpoints are compared by {self.validation.best_by}, which gets worse while self-critical training "
                "raises CIDEr-D; use --validation.best-by validation_cider_d, or leave out "
                "--training.self-critical-epochs"
            )
        if self.validation.where != "workers":
            yield (
                "self-critical training starts from the best checkpoint, whose score may not be known yet when tasks "
                "validate beside training; use --validation.where workers"
            )
        if self.training.keep_best < 1:
            yield (
                "self-critical training starts from the best checkpoint, but --training.keep-best 0 keeps none; "
                "use 1 or more"
            )

    @property
    def folder(self) -> Path:
        """Return the run's folder."""
        return self.storage.home / "training" / self.name

    def shards_folder(self) -> Path | str:
        """Return the folder or the URL of the shard set.

        Raises:
            ValueError: no shard set was given.
        """
        if self.shards is None:
            raise ValueError("no shard set was given; use --shards FOLDER (captioning convert makes one)")
        return self.shards
