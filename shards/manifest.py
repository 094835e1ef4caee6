"""Manifest of a shard set: written last, so that a folder with a manifest holds a complete shard set."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from shards.images import ImageSpec
from shards.samples import SetAside
from shards.storage.document import Document
from shards.storage.folders import ShardFolder
from shards.table.shard_table import ShardRecord, ShardRecords, ShardTable, are_in_place, records_of_split, splits_of
from shards.table.table_file import save_manifest, with_shards

# Since 3, images may have to be decoded by the codec that made them; since 4, shards may be elsewhere; since 5, their
# records may be in a table. The version of what is written is the oldest that has it.
FORMAT_VERSION = 5
_OF_CONVERTED_SETS, _OF_TARS_IN_PLACE = 3, 4
_SEALED_SINCE = 2
MANIFEST_NAME, VOCABULARY_NAME = "manifest.json", "vocabulary.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A shard set: its shards by name, and the settings that determine them."""

    shards: ShardRecords
    image_spec: ImageSpec
    codec_versions: dict[str, str]
    samples_per_shard: int
    seed: int
    vocabulary_digest: str
    minimum_word_count: int
    set_aside: tuple[SetAside, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)
    """sha256 of each annotation file, by name; empty if an earlier release wrote the manifest."""
    licenses: tuple[str, ...] = ()
    """Licences of the data, as the source names them; empty if it names none, or an earlier release converted it."""
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """Return the sha256 of the sorted shard records, as 64 hexadecimal digits."""
        if isinstance(self.shards, ShardTable) and self.shards.digest:
            return self.shards.digest  # the table's sha256 vouches for it, and computing it takes minutes
        # Only what identifies the stored bytes: no plan digests, and no reasons of samples that were set aside.
        rows = sorted(_identity(shard) for shard in self.shards)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def is_in_place(self) -> bool:
        """Return whether the shards are tars of another program, which are used where they are."""
        return are_in_place(self.shards)

    @property
    def is_turbo(self) -> bool:
        """Return whether images are decoded by the codec that made them; otherwise, as earlier, by Pillow."""
        return "simplejpeg" in self.codec_versions

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
            raise ValueError(f"the shard set has no split {split}; it has {', '.join(self.splits) or 'none'}")
        return shards

    def save(self, folder: ShardFolder) -> None:
        """Write the manifest to its shard set's folder atomically."""
        # An earlier release reads a set that it could have written.
        version = _OF_TARS_IN_PLACE if self.is_in_place else _OF_CONVERTED_SETS
        content = asdict(replace(self, shards=())) | {"format_version": version}
        if not self.licenses:
            del content["licenses"]  # so that a set without them is the same as that of an earlier release
        save_manifest(
            folder, MANIFEST_NAME, {"digest": self.digest, **content}, self.shards, table_version=FORMAT_VERSION
        )


def load_manifest(folder: ShardFolder) -> Manifest:
    """Read the manifest of a finished shard set; one of an earlier format version is upgraded to the current one.

    Raises:
        FileNotFoundError: the folder holds no manifest.
        ValueError: the manifest is damaged, was edited, or has another format version.
    """
    document = Document(folder, MANIFEST_NAME, what="shard set", job="convert")
    return document.load(
        Manifest, newest=FORMAT_VERSION, sealed_since=_SEALED_SINCE, complete=partial(with_shards, folder)
    )


def remove_manifest(folder: ShardFolder) -> None:
    """Remove a shard set's manifest, without which it is unfinished.

    Raises:
        OSError: it cannot be removed.
    """
    if isinstance(folder, Path):
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
    else:
        folder.remove(MANIFEST_NAME)


def _identity(shard: ShardRecord) -> tuple[str | int, ...]:
    reading = (shard.tar.captions, shard.tar.id_prefix) if shard.tar else ()
    return shard.name, shard.split, shard.num_samples, shard.num_bytes, shard.sha256, *reading
