"""The check of a job's data before it starts: shards, splits, features and weights are there, whole, and fit."""

import math
import socket
from dataclasses import asdict
from pathlib import Path

from captioning.model.encoder import check_backbone
from captioning.model.weights import weights_identity
from cluster.config import TrainRun
from cluster.data.extraction import encoder_identity
from cluster.data.shard_set import FeatureSet, ShardSet
from cluster.errors import Refusal
from shards.verification import verify_shards


def check_data(run: TrainRun, shard_set: ShardSet | None = None) -> ShardSet:
    """Check that a training run's shards, splits, features, backbone and weights are there, whole, and fit each other.

    Args:
        run: the training run.
        shard_set: the run's shard set and features, if an earlier check has found its shards whole.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: something is damaged or unknown.
    """
    is_verified = shard_set is not None
    shard_set = shard_set or ShardSet(run.shards_folder(), run.features, cache_gib=run.storage.cache_gib)
    _check_copies(run, shard_set)
    check_backbone(run.model.backbone)
    weights_identity(run.model.weights)
    for split in (run.train_split, run.validation_split):
        shards = shard_set.manifest.of_split(split)
        if not is_verified:
            verify_shards(shard_set.folder, shards)
    if shard_set.features:
        _check_features(run, shard_set.features)
    return shard_set


def check_home(home: Path) -> None:
    """Make the home folder on this node.

    Raises:
        Refusal: it cannot be made.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(
            f"home folder {home} cannot be made on {socket.gethostname()} ({error.strerror})",
            "use a --home on storage that all nodes mount and may write",
        ) from error


def _check_copies(run: TrainRun, shard_set: ShardSet) -> None:
    """Check that copies of the shards that training reads at once, and of the next ones, fit under the limit."""
    read = shard_set.features or shard_set
    if isinstance(read.folder, Path):
        return
    largest = max(shard.num_bytes for shard in read.manifest.shards)
    num_shards = min(2 * run.training.shuffle_window_shards, len(read.manifest.shards))
    if num_shards * largest > run.storage.cache_gib * 2**30:
        needed = math.ceil(100 * num_shards * largest / 2**30) / 100
        raise Refusal(
            f"two windows of the order, {num_shards} shards of up to {largest / 2**30:.3g} GiB, do not fit into "
            f"{run.storage.cache_gib:g} GiB of copies",
            f"use --cache-gib {needed:g} or a smaller --training.shuffle-window-shards",
        )


def _check_features(run: TrainRun, features: FeatureSet) -> None:
    """Check that features are there for both splits, and what the run's own encoder would make."""
    manifest = features.manifest
    found, needed = asdict(manifest.encoder), asdict(encoder_identity(run.model, seed=run.training.seed))
    if changed := [name for name in found if found[name] != needed[name]]:
        differences = "; ".join(f"{name} {found[name]}, not {needed[name]}" for name in changed)
        raise Refusal(
            f"{features.folder} holds features of another encoder than the run's ({differences})",
            "make some of this one by captioning extract, or change the run",
        )
    if run.model.pooling == "none" and manifest.settings.regions == "pooled":
        raise Refusal(
            f"{features.folder} holds the mean over the regions alone, while --model.pooling none reads every region",
            "use captioning extract with --regions grid",
        )
    for split in (run.train_split, run.validation_split):
        verify_shards(features.folder, manifest.of_split(split), read_all=False, job="extract")
