"""Features of a frozen encoder, extracted once for all trials of a search."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cluster.data.extraction import ExtractionPlan, digest_of_features, extract, plan_extraction
from cluster.data.output import writing_to
from cluster.data.shard_set import ShardSet
from cluster.resources.capacity import total_capacity
from cluster.resources.session import named_address
from cluster.search.space.config import TuneRun
from cluster.search.space.space import SearchSpace, decoders_of
from shards.features.manifest import FeatureSettings

logger = logging.getLogger(__name__)

_FEW_IMAGES = 200  # before an actor has imported torch, this process has encoded that many, unless the encoder is large
_ENCODER_KEYS = ("model.backbone", "model.weights", "model.trainable_from", "model.image_size_px")
# The seed is one of them because it initializes an encoder without pretrained weights.
_VIEW_KEYS = ("training.crop_area", "training.flip", "training.seed")


def why_trials_read_images(run: TuneRun, space: SearchSpace) -> str:
    """Return the reason why trials read images; empty if they read features.

    A feature set belongs to one encoder and one augmentation, so a search over either of them cannot use it.
    """
    if run.features is None and not run.search.extract:
        return "--no-extract"
    if run.model.trainable_from:
        return f"the encoder trains from {run.model.trainable_from} on"
    searched = [one.key for one in space.parameters if one.key in (*_ENCODER_KEYS, *_VIEW_KEYS)]
    return f"the search changes {', '.join(searched)}" if searched else ""


def planned_features_digest(run: TuneRun, space: SearchSpace, shard_set: ShardSet) -> str | None:
    """Return the digest of the features that trials will read, before the extraction; None if trials read images."""
    reason = why_trials_read_images(run, space)
    if reason:
        logger.info("trials read images: %s", reason)
        return None
    return digest_of_features(shard_set, model=run.model, settings=_feature_settings(run, space))


def check_features(run: TuneRun, space: SearchSpace) -> None:
    """Check that all trials can use the features of ``--features``, if it is given.

    Raises:
        ValueError: the search changes a setting that the features depend on.
    """
    if run.features and (reason := why_trials_read_images(run, space)):
        raise ValueError(f"not all trials can use --features: {reason}; leave out --features or that setting")


def extract_features(
    run: TuneRun, space: SearchSpace, shard_set: ShardSet, *, progress: Callable[[int, int], None]
) -> None:
    """Extract the missing features with as many workers as fit on the cluster, or those of few images in this process.

    If another search extracts the same features, wait for it.

    Args:
        run: the search, with the folder of its features; without a folder, nothing is extracted.
        space: the search space.
        shard_set: the images.
        progress: function that is called with the number of images done and the number of all images.
    """
    folder = run.features
    if not isinstance(folder, Path):
        return
    with writing_to(folder):
        plan = plan_extraction(
            shard_set,
            folder,
            model=run.model,
            settings=_feature_settings(run, space),
            splits=(run.train_split, run.validation_split),
            skip_bad=run.training.on_bad_sample == "skip",
        )
        if plan.missing:
            num_images = plan.num_missing_images
            logger.info("extracting features of %d images, once for all trials, into %s", num_images, folder)
        extract(
            plan,
            num_workers=_num_workers(run, plan),
            use_gpu=run.cluster.use_gpu,
            cpus_per_worker=run.cluster.cpus_per_worker,
            progress=lambda count: progress(count, plan.num_missing_images),
        )


def _num_workers(run: TuneRun, plan: ExtractionPlan) -> int:
    """Return the number of actors; 0 for few images, if the cluster is this machine."""
    is_small = plan.num_missing_images * run.search.views <= _FEW_IMAGES
    if is_small and not run.cluster.use_gpu and named_address(run.cluster) is None:
        return 0
    return max(1, total_capacity(run.cluster))


def _feature_settings(run: TuneRun, space: SearchSpace) -> FeatureSettings:
    # Pooled features are much smaller, but a trial that reads all regions cannot use them.
    values = {one.key: one.arguments for one in space.parameters}
    reads_regions = any(replace(run.model, decoder=one).reads_regions for one in decoders_of(space, run))
    is_pooled = "model.pooling" not in values and not reads_regions
    return FeatureSettings(
        regions="pooled" if is_pooled else "grid",
        views=run.search.views,
        crop_area=run.training.crop_area,
        flip=run.training.flip,
        seed=run.training.seed,
        precision=run.training.precision,
    )
