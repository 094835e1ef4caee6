"""The manifest of a feature set: for each shard of a shard set one of the same name, with features instead of images.

Beside each ``KEY.json``, the same as in the shard set, lies ``KEY.npy``: (K, R, C) float16, K views of the image with R
regions of C channels each. A sample without one is an image that did not decode. The manifest is written last.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from shards.manifest import ShardRecord, records_of_split, splits_of
from shards.storage.document import Document
from shards.storage.folders import ShardFolder, write_file

FORMAT_VERSION = 1
FEATURES_NAME = "features.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSettings:
    """What is kept of an image."""

    regions: Literal["pooled", "grid"] = "pooled"
    """pooled: the mean over the image's regions, which is all that --model.pooling mean reads; grid: every region."""
    views: int = 1
    """Ways to see an image, of which training draws one at a time: its centre, its centre mirrored if --flip, then
    crops."""
    crop_area: float = 0.7
    """Crops are squares of at least this share of the largest square."""
    flip: bool = True
    """Mirror the second view, and half of the crops; turn it off where captions say left and right."""
    seed: int = 0
    """Of the crops; and of the encoder, where it has no weights."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the encoder computes in; features are kept in float16."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.views < 1:
            raise ValueError(f"{self.views} views show nothing; use 1 or more")
        if not 0 < self.crop_area <= 1:
            raise ValueError(f"crop area {self.crop_area} is no share of an image; use above 0 up to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureEncoder:
    """The encoder that computed features of images."""

    backbone: str
    weights: str
    """Identity of the weights, wherever their file lies."""
    image_size_px: int


def feature_digest(shards_digest: str, encoder: FeatureEncoder, settings: FeatureSettings) -> str:
    """Return the sha256 of what features follow from, so that they have a name before they are computed."""
    content = asdict(settings)
    if settings.views == 1:  # the centre, which nothing is drawn for
        for name in ("crop_area", "flip", "seed"):
            del content[name]
    return _sha256([shards_digest, asdict(encoder), content])


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureManifest:
    """A feature set: its shards by name, and what they follow from."""

    shards: tuple[ShardRecord, ...]
    shards_digest: str
    """Of the shard set."""
    vocabulary_digest: str
    """Of the shard set."""
    encoder: FeatureEncoder
    settings: FeatureSettings
    num_regions: int
    num_channels: int
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """Return the sha256 of what the features follow from; a function of inputs, not of how floats were rounded."""
        return feature_digest(self.shards_digest, self.encoder, self.settings)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (K, R, C)."""
        return self.settings.views, self.num_regions, self.num_channels

    @property
    def splits(self) -> dict[str, int]:
        """Return the number of samples of each split."""
        return splits_of(self.shards)

    def of_split(self, split: str) -> list[ShardRecord]:
        """Return the shards of a split, by name.

        Raises:
            ValueError: there is no such split.
        """
        shards = records_of_split(self.shards, split)
        if not shards:
            raise ValueError(
                f"the feature set has no split {split}; it has {', '.join(self.splits) or 'none'}; "
                f"add it by captioning extract with --splits {split}"
            )
        return shards

    def save(self, folder: ShardFolder) -> None:
        """Write the manifest into its feature set, whole or not at all."""
        content = {"digest": self.digest, **asdict(self)}
        sealed = {"seal": _sha256(content), **content}
        write_file(folder, FEATURES_NAME, json.dumps(sealed, indent=1).encode() + b"\n")


def load_features(folder: ShardFolder) -> FeatureManifest:
    """Read the manifest of a finished feature set.

    Raises:
        FileNotFoundError: the folder holds no manifest.
        ValueError: the manifest is damaged, altered or of another format version.
    """
    document = Document(folder, FEATURES_NAME, what="feature set", job="extract")
    content = document.read(newest=FORMAT_VERSION)
    seal = content.pop("seal", None)
    is_sealed = seal == _sha256(content)
    digest = content.pop("digest", None)
    manifest = document.parse(FeatureManifest, content)
    if not is_sealed or digest != manifest.digest:
        raise ValueError(f"{document.path} was altered: its content does not give its digest; {document.remedy}")
    document.refuse_outside([shard.name for shard in manifest.shards])
    return manifest


def _sha256(content: Sequence[Any] | dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
