"""Features for the trials of a search: of a frozen encoder, computed once for all of them."""

import logging
from collections.abc import Callable
from pathlib import Path

from cluster.data.extraction import digest_of_features, extract, plan_extraction
from cluster.data.shard_set import ShardSet
from cluster.resources.capacity import total_capacity
from cluster.search.space.config import TuneRun
from cluster.search.space.space import SearchSpace
from shards.features.manifest import FeatureSettings

logger = logging.getLogger(__name__)

_OF_THE_ENCODER = ("model.backbone", "model.weights", "model.trainable_from", "model.image_size_px")
# Features hold the views of one augmentation, in which these are no longer asked for; and the seed of an encoder
# without weights.
_OF_THE_VIEWS = ("training.crop_area", "training.flip", "training.seed")


def why_images(run: TuneRun, space: SearchSpace) -> str:
    """Return why trials read images; empty if they read features."""
    if run.features is None and not run.search.extract:
        return "--no-extract"
    if run.model.trainable_from:
        return f"the encoder trains from {run.model.trainable_from} on"
    searched = [one.key for one in space.parameters if one.key in (*_OF_THE_ENCODER, *_OF_THE_VIEWS)]
    return f"the search changes {', '.join(searched)}" if searched else ""


def digest_to_extract(run: TuneRun, space: SearchSpace, shard_set: ShardSet) -> str | None:
    """Return the digest of the features that trials are to read, before they are made; None if they read images."""
    reason = why_images(run, space)
    if reason:
        logger.info("trials read images: %s", reason)
        return None
    return digest_of_features(shard_set, model=run.model, settings=_settings(run, space))


def check_given_features(run: TuneRun, space: SearchSpace) -> None:
    """Check that features that were given serve all trials.

    Raises:
        ValueError: the search changes what they follow from.
    """
    if run.features and (reason := why_images(run, space)):
        raise ValueError(f"--features cannot serve all trials, for {reason}; leave out --features, or that key")


def extract_features(
    run: TuneRun, space: SearchSpace, shard_set: ShardSet, *, progress: Callable[[int, int], None]
) -> None:
    """Compute what is missing of the features, on all that the cluster has.

    Args:
        run: with the folder of the features.
        space: of the search.
        shard_set: of the images.
        progress: called with the number of images done, and of all.
    """
    folder = run.features
    if not isinstance(folder, Path):
        return
    plan = plan_extraction(
        shard_set,
        folder,
        model=run.model,
        settings=_settings(run, space),
        splits=(run.train_split, run.validation_split),
        skip_bad=run.training.on_bad_sample == "skip",
    )
    if plan.missing:
        logger.info("extracting features of %d images, once for all trials, into %s", plan.num_missing_images, folder)
    extract(
        plan,
        num_workers=max(1, total_capacity(run.cluster)),
        use_gpu=run.cluster.use_gpu,
        cpus_per_worker=run.cluster.cpus_per_worker,
        progress=lambda count: progress(count, plan.num_missing_images),
    )


def _settings(run: TuneRun, space: SearchSpace) -> FeatureSettings:
    pools = run.model.pooling == "mean" and not any(one.key == "model.pooling" for one in space.parameters)
    return FeatureSettings(
        regions="pooled" if pools else "grid",
        views=run.search.views,
        crop_area=run.training.crop_area,
        flip=run.training.flip,
        seed=run.training.seed,
        precision=run.training.precision,
    )
