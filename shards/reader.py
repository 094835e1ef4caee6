"""Sample number -> bytes and captions, through memory-mapped tar files."""

import json
import mmap
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.manifest import ShardRecord

_IMAGE_SUFFIXES = ("jpg", "jpeg")


class Sample(NamedTuple):
    """One image with its captions, as stored."""

    key: str
    shard: str
    image_id: int
    jpeg: bytes
    captions: tuple[str, ...]


class _OpenShard:
    """A mapped tar file and where its samples lie in it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.members: dict[str, dict[str, tuple[int, int]]] = {}
        with tarfile.open(fileobj=path.open("rb"), mode="r:") as tar:
            for member in tar:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    key = f"{folder}/{stem}" if folder else stem
                    self.members.setdefault(key, {})[suffix.lower()] = (member.offset_data, member.size)
            if tar.fileobj:
                tar.fileobj.close()
        self.keys = list(self.members)

    def part(self, key: str, *suffixes: str) -> bytes:
        """Return the content of the sample's file with one of the suffixes."""
        members = self.members[key]
        offset, size = next(members[suffix] for suffix in suffixes if suffix in members)
        return self.content[offset : offset + size]


class ShardReader:
    """Reads the samples of some shards by number, in the order of the shards.

    Shards are mapped when first read and stay mapped; a copy for another process starts with none.

    Args:
        folder: of the shard set.
        shards: their records; sample numbers count through them.
    """

    def __init__(self, folder: Path, shards: Sequence[ShardRecord]) -> None:
        self._folder, self._shards = folder, list(shards)
        self.shard_sizes = [shard.num_samples for shard in shards]
        self._first = np.concatenate(([0], np.cumsum(self.shard_sizes, dtype=np.int64)))
        self._open: dict[int, _OpenShard] = {}

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._first[-1])

    def __reduce__(self) -> tuple:
        """Leave the maps behind when sent to another process."""
        return ShardReader, (self._folder, self._shards)

    def read(self, number: int) -> Sample:
        """Return the sample with this number.

        Raises:
            IndexError: there is no such sample.
            ValueError: the shard does not hold what its record says.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} does not exist; there are {len(self)}")
        index = int(np.searchsorted(self._first, number, side="right")) - 1
        shard, name = self._shard(index), self._shards[index].name
        key = shard.keys[number - int(self._first[index])]
        try:
            description = json.loads(shard.part(key, "json"))
            jpeg = shard.part(key, *_IMAGE_SUFFIXES)
            return Sample(key, name, int(description["image_id"]), jpeg, tuple(description["captions"]))
        except (StopIteration, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"sample {key} of {name} is damaged ({error!r}); run captioning convert again") from error

    def _shard(self, index: int) -> _OpenShard:
        if index not in self._open:
            record = self._shards[index]
            try:
                shard = _OpenShard(self._folder / record.name)
            except (OSError, ValueError, tarfile.TarError) as error:
                raise ValueError(f"{self._folder / record.name} cannot be read ({error}); convert again") from error
            if len(shard.keys) != record.num_samples:
                raise ValueError(
                    f"{record.name} holds {len(shard.keys)} samples, its record says {record.num_samples}; "
                    "run captioning convert again"
                )
            self._open[index] = shard
        return self._open[index]
