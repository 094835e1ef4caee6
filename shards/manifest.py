"""Manifest of a shard set: written last, so that a folder with a manifest holds a complete shard set."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from shards.images import ImageSpec
from shards.samples import SetAside
from shards.storage.document import Document, seal
from shards.storage.folders import ShardFolder, write_file

FORMAT_VERSION = 3  # since 3, images may have to be decoded by the codec that made them
_SEALED_SINCE = 2
MANIFEST_NAME, VOCABULARY_NAME = "manifest.json", "vocabulary.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One finished shard."""

    name: str
    split: str
    num_samples: int
    num_bytes: int
    sha256: str
    plan_digest: str
    set_aside: tuple[SetAside, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A shard set: its shards by name, and the settings that determine them."""

    shards: tuple[ShardRecord, ...]
    image_spec: ImageSpec
    codec_versions: dict[str, str]
    samples_per_shard: int
    seed: int
    vocabulary_digest: str
    minimum_word_count: int
    set_aside: tuple[SetAside, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)
    """sha256 of each annotation file, by name; empty if an earlier release wrote the manifest."""
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """Return the sha256 of the sorted shard records, as 64 hexadecimal digits."""
        # Only what identifies the stored bytes: no plan digests, and no reasons of samples that were set aside.
        rows = sorted(
            (shard.name, shard.split, shard.num_samples, shard.num_bytes, shard.sha256) for shard in self.shards
        )
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def is_turbo(self) -> bool:
        """Return whether images are decoded by the codec that made them; otherwise, as earlier, by Pillow."""
        return "simplejpeg" in self.codec_versions

    @property
    def shard_names(self) -> list[str]:
        """Return the names of the shards."""
        return [shard.name for shard in self.shards]

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
            raise ValueError(f"the shard set has no split {split}; it has {', '.join(self.splits) or 'none'}")
        return shards

    def save(self, folder: ShardFolder) -> None:
        """Write the manifest to its shard set's folder atomically."""
        write_file(folder, MANIFEST_NAME, seal({"digest": self.digest, **asdict(self)}))


def load_manifest(folder: ShardFolder) -> Manifest:
    """Read the manifest of a finished shard set; one of an earlier format version is upgraded to the current one.

    Raises:
        FileNotFoundError: the folder holds no manifest.
        ValueError: the manifest is damaged, was edited, or has another format version.
    """
    document = Document(folder, MANIFEST_NAME, what="shard set", job="convert")
    return document.load(Manifest, newest=FORMAT_VERSION, sealed_since=_SEALED_SINCE)


def splits_of(shards: Sequence[ShardRecord]) -> dict[str, int]:
    """Return the number of samples of each split."""
    splits = sorted({shard.split for shard in shards})
    return {split: sum(shard.num_samples for shard in shards if shard.split == split) for split in splits}


def records_of_split(shards: Sequence[ShardRecord], split: str) -> list[ShardRecord]:
    """Return the shards of a split, sorted by name; empty if there is no such split."""
    return sorted((shard for shard in shards if shard.split == split), key=lambda shard: shard.name)
