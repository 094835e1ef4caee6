"""Compute a frozen encoder's features of a shard set once, for captioning train --features.

The same command again computes only what is missing.

Examples:
    captioning extract data/coco-shards data/coco-features                # ResNet-152, pooled: what Show and Tell reads
    captioning extract data/coco-shards data/coco-features --views 8      # centre, mirrored, six crops
    captioning extract data/coco-shards data/coco-features --regions grid --use-gpu --num-workers 4
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from captioning.bounds import raise_mistakes, too_large
from captioning.config import BATCH_SIZES, ModelConfig
from cluster.config import ClusterConfig, HomeConfig, TrackingConfig
from cluster.locations import Location
from cluster.settings import with_absolute_paths
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.progress_bars import counting
from shards.features.manifest import FeatureManifest, FeatureSettings
from shards.manifest import load_manifest
from shards.storage.cache import DEFAULT_CACHE_GIB

if TYPE_CHECKING:
    from cluster.data.extraction import ExtractionPlan
    from cluster.tracking.extraction_run import ExtractionRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """The frozen encoder, as in captioning train."""

    backbone: str = "resnet152"
    """Name of a torchvision classifier; its layers before the pooling are the encoder."""
    weights: str = "DEFAULT"
    """DEFAULT (torchvision's pretrained weights, downloaded), none, or a local .pth or .safetensors file."""
    image_size_px: int = 224
    """Side of the square image that the encoder reads, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractJob:
    """What to extract, and how."""

    shards: Annotated[tyro.conf.Positional[Location], tyro.conf.arg(metavar="SHARDS")]
    """Shard set to read: a folder, or any URL that fsspec supports."""
    features: Annotated[tyro.conf.Positional[Location], tyro.conf.arg(metavar="FEATURES")]
    """Feature set to write: a folder, or any URL that fsspec supports."""
    model: EncoderConfig = field(default_factory=EncoderConfig)
    settings: Annotated[FeatureSettings, tyro.conf.arg(name="")] = field(default_factory=FeatureSettings)
    splits: tuple[str, ...] = ()
    """Splits to compute; all splits of the shard set if not given."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do with an image that cannot be decoded: stop, or skip it, which makes it a bad sample in training."""
    cache_gib: float = DEFAULT_CACHE_GIB
    """Size of each node's cache of remote shards, in GiB; it lies in ~/.cache/captioning/shards or CAPTIONING_CACHE."""
    batch_size: int = 32
    """Images per batch."""
    num_workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Number of Ray actors, each with a copy of the encoder; 0 computes in this process, without Ray."""
    use_gpu: bool = False
    """Give each actor a GPU."""
    cpus_per_worker: int = 1
    """CPUs reserved for each actor, and compute threads of each, or of this process without actors."""
    address: str | None = None
    """Address of a Ray cluster; if not given, RAY_ADDRESS; without either, Ray starts on this machine."""
    home: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Home folder of the embedded tracker; if not given, CAPTIONING_HOME, or runs. An extraction is logged as an MLflow
    run if a tracker is named or the home folder has one."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        if self.num_workers < 0:
            yield f"num_workers {self.num_workers} is negative; use 1 or more, or 0 to compute without Ray"
        yield from too_large(self, batch_size=BATCH_SIZES[1], num_workers=100_000, cpus_per_worker=10_000)
        for name in ("batch_size", "cpus_per_worker"):
            if getattr(self, name) < 1:
                yield f"{name} {getattr(self, name)} is too small; use 1 or more"


def main(invocation: Invocation[ExtractJob]) -> None:
    """Compute the missing shards of the feature set, or list them with ``--dry-run``."""
    from cluster.data.output import writing_to

    job = invocation.settings
    with contextlib.nullcontext() if invocation.dry_run else writing_to(job.features):
        plan = _plan(job)
        manifest = plan.with_records(plan.finished) if invocation.dry_run else _extract(plan, job)
    if invocation.dry_run:
        for shard in plan.missing:
            logger.info("would write %s/%s: %d images", job.features, shard.name, shard.source.num_samples)
    if invocation.json:
        write_json(
            {
                "features": job.features,
                "digest": manifest.digest,
                "splits": manifest.splits,
                "num_views": manifest.settings.views,
                "num_regions": manifest.num_regions,
                "num_channels": manifest.num_channels,
            }
        )


def _plan(job: ExtractJob) -> "ExtractionPlan":
    from cluster.data.extraction import plan_extraction
    from cluster.data.shard_set import ShardSet

    model = ModelConfig(backbone=job.model.backbone, weights=job.model.weights, image_size_px=job.model.image_size_px)
    plan = plan_extraction(
        ShardSet(job.shards, cache_gib=job.cache_gib),
        job.features,
        model=model,
        settings=job.settings,
        splits=job.splits,
        batch_size=job.batch_size,
        skip_bad=job.on_bad == "skip",
    )
    num_views, num_regions, num_channels = plan.manifest.shape
    logger.info(
        "features of an image: %d views of %d regions of %d channels; to compute: %d images in %d of %d shards, "
        "about %d MiB",
        num_views,
        num_regions,
        num_channels,
        plan.num_missing_images,
        len(plan.missing),
        len(plan.shards),
        plan.num_missing_bytes >> 20,
    )
    return plan


def _extract(plan: "ExtractionPlan", job: ExtractJob) -> FeatureManifest:
    with _logged(plan, job) as run:
        manifest, seconds = _compute(plan, job)
        if run:
            run.log(manifest, num_images=plan.num_missing_images, seconds=seconds)
    set_aside = [one for shard in manifest.shards for one in shard.set_aside]
    for one in set_aside:
        logger.warning("no features for %s: %s", one.key, one.reason)
    kept = ", ".join(f"{count} {split}" for split, count in manifest.splits.items())
    logger.info(
        "%s: images %s; %d of them without features; digest %s",
        job.features,
        kept,
        len(set_aside),
        manifest.digest[:12],
    )
    log_next("train", "--shards", job.shards, "--features", job.features, "--name", "NAME")
    return manifest


def _compute(plan: "ExtractionPlan", job: ExtractJob) -> tuple[FeatureManifest, float]:
    """Compute what is missing; return the manifest, and the seconds that it took without the start of Ray."""
    from cluster.checks.data import fetch_weights_here
    from cluster.data.extraction import extract
    from cluster.resources.session import cluster_session

    is_on_cluster, cluster = bool(plan.missing and job.num_workers), ClusterConfig(address=job.address)
    if plan.missing:
        fetch_weights_here(job.model.backbone, job.model.weights, cluster)
    session = cluster_session(cluster) if is_on_cluster else contextlib.nullcontext()
    with session, counting() as show:
        started = time.monotonic()
        manifest = extract(
            plan,
            num_workers=job.num_workers,
            use_gpu=job.use_gpu,
            cpus_per_worker=job.cpus_per_worker,
            progress=lambda done: show("images", done, plan.num_missing_images),
        )
        return manifest, time.monotonic() - started


def _logged(plan: "ExtractionPlan", job: ExtractJob) -> "contextlib.AbstractContextManager[ExtractionRun | None]":
    """Return a block that is an MLflow run; without a tracker, an empty one."""
    home = with_absolute_paths(HomeConfig(home=job.home) if job.home else HomeConfig())
    if not job.tracking.may_exist(home.home):
        return contextlib.nullcontext()
    from cluster.tracking.datasets import split_inputs
    from cluster.tracking.extraction_run import Extraction, extraction_run

    source = plan.work.source
    splits = dict.fromkeys(shard.split for shard in plan.shards)
    inputs = split_inputs(source, load_manifest(source), [(split, "extraction") for split in splits])
    extraction = Extraction(source, inputs, plan.work.folder, plan.manifest)
    return extraction_run(job.tracking, home, extraction, is_resumed=bool(plan.finished))


JOB = Job(name="extract", settings=ExtractJob, run=main, description=__doc__, loads=("torch", "ray"))
