"""Manifest of a feature set: for each shard of a shard set, a shard of the same name with features instead of images.

Beside each ``KEY.json``, the same as in the shard set, lies ``KEY.npy``: (K, R, C) float16, K views of the image with R
regions of C channels each. A sample without it has no features: its image did not decode, or the features were not
finite in float16. The manifest is written last, so it marks a complete feature set.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from shards.storage.document import Document
from shards.storage.folders import ShardFolder
from shards.table.shard_table import ShardRecord, ShardRecords, records_of_split, splits_of
from shards.table.table_file import save_manifest, with_shards

FORMAT_VERSION = 2  # since 2, the records of shards may be in a table
_OF_LISTED_SHARDS = 1
FEATURES_NAME = "features.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSettings:
    """The features to compute and store for each image."""

    regions: Literal["pooled", "grid"] = "pooled"
    """pooled: store the mean over the image's regions, enough for --model.decoder lstm with --model.pooling mean; grid:
    store every region, for any decoder."""
    views: int = 1
    """Number of views stored per image; training draws one at a time. View 0 is the centre, view 1 its mirror image if
    --flip, the others are random crops."""
    crop_area: float = 0.7
    """Smallest area of a square crop, as a share of the largest square in the image."""
    flip: bool = True
    """Mirror the second view and half of the crops; turn it off if captions say left and right."""
    seed: int = 0
    """Seed of the crops, and of an encoder without pretrained weights."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the encoder's computation; features are always stored in float16."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.views < 1:
            raise ValueError(f"views {self.views} is too few; use 1 or more")
        if not 0 < self.crop_area <= 1:
            raise ValueError(f"crop_area {self.crop_area} is out of range; use a share above 0, up to 1")

    def in_use(self) -> dict[str, Any]:
        """Return the settings that determine the features, by name."""
        content = asdict(self)
        if self.views == 1:  # the centre alone, which uses no random numbers
            for name in ("crop_area", "flip", "seed"):
                del content[name]
        return content


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureEncoder:
    """Identity of the encoder that computed the features."""

    backbone: str
    weights: str
    """Identity of the weights, independent of the location of their file."""
    image_size_px: int


def feature_digest(shards_digest: str, encoder: FeatureEncoder, settings: FeatureSettings) -> str:
    """Return the sha256 of everything that determines the features; known before they are computed."""
    content = [shards_digest, asdict(encoder), settings.in_use()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureManifest:
    """A feature set: its shards by name, and the inputs and settings that determine them."""

    shards: ShardRecords
    shards_digest: str
    """Digest of the shard set."""
    vocabulary_digest: str
    """Digest of the shard set's vocabulary."""
    encoder: FeatureEncoder
    settings: FeatureSettings
    num_regions: int
    num_channels: int
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """Return the sha256 of the inputs and settings that determine the features; rounding does not change it."""
        return feature_digest(self.shards_digest, self.encoder, self.settings)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (K, R, C): views, regions, channels."""
        return self.settings.views, self.num_regions, self.num_channels

    @property
    def splits(self) -> dict[str, int]:
        """Return the number of samples of each split."""
        return splits_of(self.shards)

    def of_split(self, split: str) -> Sequence[ShardRecord]:
        """Return the shards of a split, by name.

        Raises:
            ValueError: there is no such split.
        """
        shards = records_of_split(self.shards, split)
        if not shards:
            raise ValueError(
                f"the feature set has no split {split}; it has {', '.join(self.splits) or 'none'}; "
                f"add it with captioning extract --splits {split}"
            )
        return shards

    def save(self, folder: ShardFolder) -> None:
        """Write the manifest to its feature set's folder atomically."""
        content = asdict(replace(self, shards=())) | {"format_version": _OF_LISTED_SHARDS}
        content = {"digest": self.digest, **content}
        save_manifest(folder, FEATURES_NAME, content, self.shards, table_version=FORMAT_VERSION)


def load_features(folder: ShardFolder) -> FeatureManifest:
    """Read the manifest of a finished feature set.

    Raises:
        FileNotFoundError: the folder holds no manifest.
        ValueError: the manifest is damaged, was edited, or has another format version.
    """
    document = Document(folder, FEATURES_NAME, what="feature set", job="extract")
    return document.load(FeatureManifest, newest=FORMAT_VERSION, sealed_since=1, complete=partial(with_shards, folder))
