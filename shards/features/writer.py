"""Writer of feature shards: features -> tar files of the WebDataset format."""

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shards.features.manifest import FeatureEncoder, FeatureSettings, feature_digest
from shards.samples import CaptionedImage, SetAside
from shards.storage.folders import ShardFolder
from shards.table.shard_table import ShardRecord
from shards.writer import write_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureShardPlan:
    """The content of one feature shard, before it is written."""

    source: ShardRecord
    """Record of the shard with the images."""
    first: int
    """Number of the shard's first sample within the split."""
    encoder: FeatureEncoder
    settings: FeatureSettings
    skip_bad: bool = False

    @property
    def name(self) -> str:
        """Return the shard's name, the same as its source's."""
        return self.source.name

    @property
    def images(self) -> tuple[CaptionedImage, ...]:
        """Return no images: the shard is made of another one."""
        return ()

    @property
    def split(self) -> str:
        """Return the shard's split."""
        return self.source.split

    def digest(self) -> str:
        """Return the sha256 of everything that determines the shard's features."""
        tar = self.source.tar
        source = [
            self.name,
            self.split,
            self.source.sha256,
            self.first,
            *((tar.captions, tar.id_prefix) if tar else ()),
        ]
        content = [source, feature_digest("", self.encoder, self.settings)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSample:
    """One sample of a feature shard."""

    key: str
    description: bytes
    """Content of its JSON file."""
    features: np.ndarray | None
    """(K, R, C) float16."""
    fault: str = ""
    """Reason why it has no features; else empty."""


def write_feature_shard(samples: Iterable[FeatureSample], plan: FeatureShardPlan, folder: ShardFolder) -> ShardRecord:
    """Write one feature shard, then its record, which marks the shard as finished."""
    set_aside: list[SetAside] = []
    members = (_members(sample, set_aside) for sample in samples)
    return write_samples(members, plan, folder, plan_digest=plan.digest(), set_aside=set_aside)


def _members(sample: FeatureSample, set_aside: list[SetAside]) -> dict[str, str | bytes]:
    members: dict[str, str | bytes] = {"__key__": sample.key, "json": sample.description}
    if sample.features is None:
        set_aside.append(SetAside(key=sample.key, reason=sample.fault))
        return members
    file = io.BytesIO()
    np.save(file, sample.features, allow_pickle=False)
    return members | {"npy": file.getvalue()}
