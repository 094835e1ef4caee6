"""Manifest of a shard set: written last, so that a folder with a manifest holds a complete shard set."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from shards.images import ImageSpec
from shards.layout import TarSource
from shards.samples import SetAside
from shards.storage.document import Document, seal
from shards.storage.folders import ShardFolder, write_file

FORMAT_VERSION = (
    4  # since 3, images may have to be decoded by the codec that made them; since 4, shards may be elsewhere
)
_OF_CONVERTED_SETS = 3
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
    tar: TarSource | None = None
    """Where the shard is, if it is a tar of another program; None if it is beside the manifest."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they are stored: ``tar`` only where it is, as releases before it have none."""
        content = asdict(self)
        return content if self.tar else {name: value for name, value in content.items() if name != "tar"}


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
        rows = sorted(_identity(shard) for shard in self.shards)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def is_in_place(self) -> bool:
        """Return whether the shards are tars of another program, which are used where they are."""
        return any(shard.tar for shard in self.shards)

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
        # An earlier release reads a set that it could have written.
        version = FORMAT_VERSION if self.is_in_place else _OF_CONVERTED_SETS
        content = asdict(replace(self, shards=())) | {"format_version": version}
        content["shards"] = tuple(shard.as_dict() for shard in self.shards)
        write_file(folder, MANIFEST_NAME, seal({"digest": self.digest, **content}))


def load_manifest(folder: ShardFolder) -> Manifest:
    """Read the manifest of a finished shard set; one of an earlier format version is upgraded to the current one.

    Raises:
        FileNotFoundError: the folder holds no manifest.
        ValueError: the manifest is damaged, was edited, or has another format version.
    """
    document = Document(folder, MANIFEST_NAME, what="shard set", job="convert")
    return document.load(Manifest, newest=FORMAT_VERSION, sealed_since=_SEALED_SINCE)


def _identity(shard: ShardRecord) -> tuple[str | int, ...]:
    reading = (shard.tar.captions, shard.tar.id_prefix) if shard.tar else ()
    return shard.name, shard.split, shard.num_samples, shard.num_bytes, shard.sha256, *reading


def splits_of(shards: Sequence[ShardRecord]) -> dict[str, int]:
    """Return the number of samples of each split."""
    splits = sorted({shard.split for shard in shards})
    return {split: sum(shard.num_samples for shard in shards if shard.split == split) for split in splits}


def records_of_split(shards: Sequence[ShardRecord], split: str) -> list[ShardRecord]:
    """Return the shards of a split, sorted by name; empty if there is no such split."""
    return sorted((shard for shard in shards if shard.split == split), key=lambda shard: shard.name)
