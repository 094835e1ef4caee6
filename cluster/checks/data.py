"""Checks of a job's data before it starts: shards, splits, features and weights exist, are intact and fit together."""

import logging
import math
import os
import socket
from dataclasses import asdict
from pathlib import Path

from captioning.data.vocabulary import SPECIAL_WORDS
from captioning.model.backbone import fetch_weights
from captioning.model.encoder import check_backbone
from captioning.model.weights import weights_identity
from cluster.config import ClusterConfig, TrainRun
from cluster.data.document_frequencies import check_references
from cluster.data.extraction import encoder_identity
from cluster.data.shard_set import FeatureSet, ShardSet
from cluster.errors import Refusal
from cluster.resources.session import named_address
from shards.shard_files import ShardFiles
from shards.verification import verify_shards

logger = logging.getLogger(__name__)


def check_data(run: TrainRun, shard_set: ShardSet | None = None) -> ShardSet:
    """Check that a training run's shards, splits, features, backbone and weights exist, are intact and fit together.

    Args:
        run: training run to check.
        shard_set: shard set and features of the run, if an earlier check has verified the shards; otherwise None.

    Returns:
        The run's shard set, opened.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: something is damaged or unknown.
    """
    is_verified = shard_set is not None
    shard_set = shard_set or ShardSet(run.shards_folder(), run.features, cache_gib=run.storage.cache_gib)
    _check_vocabulary(shard_set)
    _check_copies(run, shard_set)
    check_backbone(run.model.backbone)
    weights_identity(run.model.weights)
    if run.train_split == run.validation_split:
        logger.warning(
            "split %s is both trained on and validated on, so no score tells anything of other images; "
            "use another --validation-split",
            run.train_split,
        )
    if not is_verified:
        logger.info("verifying the shards of splits %s and %s", run.train_split, run.validation_split)
    for split in (run.train_split, run.validation_split):
        shards = shard_set.manifest.of_split(split)
        if not is_verified:
            verify_shards(shard_set.folder, shards)
    if shard_set.features:
        _check_features(run, shard_set.features)
    if run.training.self_critical_epochs:
        check_references(shard_set, run.train_split, max_words=run.training.max_caption_words)
    return shard_set


def fetch_weights_here(backbone: str, weights: str, cluster: ClusterConfig) -> None:
    """Download torchvision's weights before an embedded cluster starts, whose workers would all do so, and all fail.

    Nothing is downloaded for a cluster at an address, because this machine need not be one of its workers.

    Raises:
        ConnectionError: they cannot be downloaded.
    """
    if weights == "DEFAULT" and named_address(cluster) is None:
        fetch_weights(backbone)


def check_home(home: Path) -> None:
    """Create the home folder on this node.

    Raises:
        Refusal: it cannot be created or written.
    """
    remedy = "set --home to storage that all nodes mount and can write"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found = f"home folder {home} cannot be created on {socket.gethostname()} ({error.strerror})"
        raise Refusal(found, remedy) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise Refusal(f"home folder {home} cannot be written on {socket.gethostname()} by this user", remedy)


def _check_vocabulary(shard_set: ShardSet) -> None:
    """Check that the vocabulary has words; earlier releases also wrote one without."""
    if len(shard_set.vocabulary) == len(SPECIAL_WORDS):
        raise Refusal(
            f"{shard_set.folder} has a vocabulary without words, so a model could only write empty captions",
            "run captioning convert into a new folder; it says what to change",
        )


def _check_copies(run: TrainRun, shard_set: ShardSet) -> None:
    """Check that the node's cache can hold the shards that training reads at once, and those of the next window."""
    read = shard_set.features or shard_set
    fetched = ShardFiles(read.folder).remote_sizes(read.manifest.shards)
    if not len(fetched):
        return
    largest = int(fetched.max())
    # The window that is read and the next one, which is fetched meanwhile.
    num_shards = min(2 * run.training.shuffle_window_shards, len(fetched))
    if num_shards * largest > run.storage.cache_gib * 2**30:
        # Rounded up, so that the suggested value suffices.
        needed = math.ceil(100 * num_shards * largest / 2**30) / 100
        raise Refusal(
            f"two shuffle windows, {num_shards} shards of up to {largest / 2**30:.3g} GiB, do not fit into the node's "
            f"cache of {run.storage.cache_gib:g} GiB",
            f"use --cache-gib {needed:g} or a smaller --training.shuffle-window-shards",
        )


def _check_features(run: TrainRun, features: FeatureSet) -> None:
    """Check that both splits have features, and that the run's own encoder would compute the same."""
    manifest = features.manifest
    found, needed = asdict(manifest.encoder), asdict(encoder_identity(run.model, seed=run.training.seed))
    if changed := [name for name in found if found[name] != needed[name]]:
        differences = "; ".join(f"{name} {found[name]}, not {needed[name]}" for name in changed)
        raise Refusal(
            f"{features.folder} was made with another encoder than the run's ({differences})",
            "run captioning extract with the run's encoder, or change the run's model",
        )
    if run.model.reads_regions and manifest.settings.regions == "pooled":
        reader = "--model.pooling none" if run.model.decoder == "lstm" else f"--model.decoder {run.model.decoder}"
        raise Refusal(
            f"{features.folder} has only the mean over the regions, but {reader} reads every region",
            "run captioning extract with --regions grid",
        )
    for split in (run.train_split, run.validation_split):
        verify_shards(features.folder, manifest.of_split(split), read_all=False, job="extract")
