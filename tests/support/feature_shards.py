"""Two shards of a feature set with made-up features."""

import json

import numpy as np
import pytest

from shards.features.manifest import FeatureEncoder, FeatureManifest, FeatureSettings
from shards.features.writer import FeatureSample, FeatureShardPlan, write_feature_shard
from shards.table.shard_table import ShardRecord

ENCODER = FeatureEncoder(backbone="resnet18", weights="DEFAULT", image_size_px=64)


SETTINGS = FeatureSettings(views=2)


SHAPE = (2, 3, 4)  # views, regions, channels


def source(name="train-000000.tar", num_samples=3):
    return ShardRecord(
        name=name, split=name[:-11], num_samples=num_samples, num_bytes=1, sha256="5" * 64, plan_digest="p"
    )


def plan(name="train-000000.tar", *, first=0, **changes):
    return FeatureShardPlan(source=source(name), first=first, encoder=ENCODER, settings=SETTINGS, **changes)


def features(number):
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float16)


def samples(numbers, *, without=()):
    for number in numbers:
        description = json.dumps({"image_id": number, "captions": [f"caption of {number}"]}).encode()
        found = None if number in without else features(number)
        yield FeatureSample(key=f"{number:012}", description=description, features=found, fault="it is white")


def manifest(shards, **changes):
    fields = {
        "shards_digest": "d" * 64, "vocabulary_digest": "v" * 64, "encoder": ENCODER, "settings": SETTINGS,
        "num_regions": 3, "num_channels": 4,
    }  # fmt: skip
    return FeatureManifest(shards=tuple(shards), **{**fields, **changes})


@pytest.fixture
def stored(tmp_path):
    """Write two shards of three samples each, the fifth without features; return the folder and the manifest."""
    records = [
        write_feature_shard(samples(range(3)), plan(), tmp_path),
        write_feature_shard(samples(range(3, 6), without=(4,)), plan("train-000001.tar", first=3), tmp_path),
    ]
    made = manifest(records)
    made.save(tmp_path)
    return tmp_path, made
