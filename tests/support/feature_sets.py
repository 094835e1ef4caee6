"""Feature sets of synthetic scenes, by a tiny encoder with random weights."""

import os
from dataclasses import replace

from captioning.config import ModelConfig
from cluster.data.extraction import extract, plan_extraction
from cluster.data.shard_set import ShardSet
from shards.features.manifest import FeatureSettings

SEED = 3
ENCODER = ModelConfig(
    backbone="squeezenet1_1", weights="none", image_size_px=36, embedding_size=16, hidden_size=16, dropout=0.3
)


def settings(**changes):
    return replace(FeatureSettings(seed=SEED), **changes)


def plan(shards, folder, *, model=ENCODER, splits=(), skip_bad=False, **changes):
    return plan_extraction(
        ShardSet(shards), folder, model=model, settings=settings(**changes), splits=splits, skip_bad=skip_bad
    )


def extracted(shards, folder, **options):
    """Extract a feature set in this process; return its folder."""
    extract(plan(shards, folder, **options), num_workers=0)
    return folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(shard, key):
    """Overwrite the beginning of an image in a shard; the shard's size does not change."""
    stored = bytearray(shard.read_bytes())
    start = stored.index(f"{key}.jpg".encode()) + 512
    stored[start : start + 32] = os.urandom(4) + b"?" * 28
    shard.write_bytes(stored)
