"""Reader of shard sets: sample number -> JPEG bytes and captions, through memory-mapped tar files."""

import mmap
import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from shards.layout import IMAGE_SUFFIXES, JPEG_SUFFIXES, description_of, is_sample, parse_description, split_name
from shards.samples import ImageId
from shards.shard_files import ShardFiles
from shards.storage.cache import DEFAULT_CACHE_GIB
from shards.storage.folders import ShardFolder
from shards.storage.tar_index import Member, index_members
from shards.table.shard_table import ShardRecord, sizes_of

# Each open shard holds a file descriptor, and a process commonly has 1,024; training reads one window at a time.
MOST_OPEN_SHARDS = 256
# Files of samples that are read; other suffixes may be many, and are not indexed.
_READ_SUFFIXES = (*IMAGE_SUFFIXES, "txt", "json", "npy")
_NUM_AHEAD = 2  # shards to fetch beyond the current one when they are read in order


class Sample(NamedTuple):
    """One image with its captions, as stored in a shard."""

    key: str
    shard: str
    image_id: ImageId
    jpeg: bytes
    """Content of the image file: a JPEG, unless the set is one of other programs' tars."""
    captions: tuple[str, ...]


class DamagedSampleError(ValueError):
    """A sample that cannot be read, although its shard can.

    Attributes:
        key: key of the sample.
        shard: name of its shard.
        reason: short description of the fault.
    """

    def __init__(self, key: str, location: str, reason: str, job: str = "convert") -> None:
        super().__init__(key, location, reason, job)
        self.key, self.shard, self.reason = key, location.rpartition("/")[2], reason
        self._location, self._job = location, job

    def __str__(self) -> str:
        """Return the sample, the reason and the remedy."""
        return f"sample {self.key} of {self._location} is damaged ({self.reason}); run captioning {self._job} again"


class OpenShard:
    """A memory-mapped tar file, with an index of its samples.

    Args:
        file: the tar file, open.
        record: record of the shard, which says how samples of another program are read.
    """

    def __init__(self, file: BinaryIO, record: ShardRecord) -> None:
        # The map keeps the file open, and with it the lock that protects a cached copy from removal.
        self.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows: dict[str, int] = {}
        self._spans = {
            suffix: array("q") for suffix in _READ_SUFFIXES
        }  # offset and size of each row, -1 without a file
        for member in index_members(self.content, file):
            if name := split_name(member.name):
                row = self._rows.setdefault(name[0], len(self._rows))
                if name[1] in self._spans:
                    self._add(row, name[1], member)
        self._tar = record.tar
        self.image_suffixes = IMAGE_SUFFIXES if self._tar else JPEG_SUFFIXES
        self.keys = list(self._rows)
        if self._tar:
            unusable, captions = {one.key for one in record.set_aside}, self._tar.captions
            found = ((key, [suffix for suffix in self._spans if self.has(key, suffix)]) for key in self.keys)
            self.keys = [key for key, suffixes in found if is_sample(suffixes, captions) and key not in unusable]

    def _add(self, row: int, suffix: str, member: Member) -> None:
        spans = self._spans[suffix]
        spans.extend((-1, 0) * (row + 1 - len(spans) // 2))
        spans[2 * row], spans[2 * row + 1] = member.offset, member.size

    def has(self, key: str, suffix: str) -> bool:
        """Return whether the sample has a file with this suffix."""
        at = 2 * self._rows[key]
        return at < len(self._spans[suffix]) and self._spans[suffix][at] >= 0

    def span(self, key: str, *suffixes: str) -> tuple[int, int]:
        """Return offset and size, in bytes, of a sample's file with one of the suffixes.

        Raises:
            ValueError: the sample has no such file.
        """
        for suffix in suffixes:
            if self.has(key, suffix):
                at = 2 * self._rows[key]
                return self._spans[suffix][at], self._spans[suffix][at + 1]
        raise ValueError(f"it has no {' or '.join(suffixes)}")

    def description(self, key: str) -> bytes:
        """Return a sample's JSON as ``convert`` stores it; raises as ``span``, and if its captions cannot be read."""
        if self._tar is None:
            return self.part(key, "json")
        files = {suffix: self.part(key, suffix) for suffix in ("txt", "json") if self.has(key, suffix)}
        return description_of(key, files, self._tar)

    def part(self, key: str, *suffixes: str) -> bytes:
        """Return the content of a sample's file with one of the suffixes; raises as ``span``."""
        offset, size = self.span(key, *suffixes)
        return self.content[offset : offset + size]


class ShardReader:
    """Reads samples by number; samples are numbered through the given shards, in their order.

    A shard is mapped on first read, and the most recently used ones stay mapped. An unpickled reader starts with none.

    Args:
        folder: folder of the shard set.
        shards: records of the shards to read.
        job: command that makes such shards, for error messages.
        cache_gib: size limit in GiB of this node's copies of tars at URLs; that of the folder if it is at a URL.
        most_open: number of shards that stay mapped, such as the shards of a shuffle window; their indices take half a
            kilobyte a sample.
    """

    def __init__(
        self,
        folder: ShardFolder,
        shards: Sequence[ShardRecord],
        *,
        job: str = "convert",
        cache_gib: float = DEFAULT_CACHE_GIB,
        most_open: int = MOST_OPEN_SHARDS,
    ) -> None:
        self._folder, self._shards, self._cache_gib = folder, shards, cache_gib
        self._job = "index" if any(shard.tar for shard in self._shards[:1]) else job
        self._files = ShardFiles(folder, cache_gib=cache_gib)
        self.shard_sizes = sizes_of(shards)
        self._first = np.concatenate(([0], np.cumsum(self.shard_sizes)))
        self._most_open = min(most_open, MOST_OPEN_SHARDS)
        self._shard = lru_cache(maxsize=self._files.max_open(shards, limit=self._most_open))(self._open)
        self._last_opened = -1

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._first[-1])

    def __reduce__(self) -> tuple:
        """Pickle without the maps."""
        made = partial(ShardReader, job=self._job, cache_gib=self._cache_gib, most_open=self._most_open)
        return made, (self._folder, self._shards)

    def read(self, number: int) -> Sample:
        """Return the sample with this number.

        Raises:
            IndexError: there is no such sample.
            DamagedSampleError: the shard can be read, but this sample cannot.
            ValueError: the shard cannot be read, or differs from its record.
        """
        key, location, shard = self.find(number)
        try:
            image_id, captions = parse_description(shard.description(key))
            return Sample(key, location.rpartition("/")[2], image_id, shard.part(key, *shard.image_suffixes), captions)
        except (ValueError, RecursionError) as error:  # RecursionError: JSON that is nested too deep
            raise DamagedSampleError(key, location, " ".join(str(error).split()), self._job) from error

    def read_image(self, number: int) -> bytes:
        """Return the content of a sample's image file; raises as ``read``."""
        key, location, shard = self.find(number)
        try:
            return shard.part(key, *shard.image_suffixes)
        except ValueError as error:
            raise DamagedSampleError(key, location, str(error), self._job) from error

    def captions(self, number: int) -> tuple[str, ...]:
        """Return a sample's captions without reading its image; raises as ``read``."""
        key, location, shard = self.find(number)
        try:
            return parse_description(shard.description(key))[1]
        except (ValueError, RecursionError) as error:  # RecursionError: JSON that is nested too deep
            raise DamagedSampleError(key, location, " ".join(str(error).split()), self._job) from error

    def describe(self, number: int) -> tuple[str, bytes]:
        """Return a sample's key and its JSON as ``convert`` stores it, empty if there is none; raises as ``find``."""
        key, _, shard = self.find(number)
        try:
            return key, shard.description(key)
        except (ValueError, RecursionError):
            return key, b""

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch shards at URLs into the node's cache in the background, in this order.

        Args:
            shards: indices into ``shard_sizes``.
        """
        self._files.prefetch([self._shards[index] for index in shards])

    def find(self, number: int) -> tuple[str, str, OpenShard]:
        """Return a sample's key, the path or URL of its shard, and the shard.

        Raises:
            IndexError, ValueError: as in ``read``.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} does not exist; there are {len(self)}")
        index = bisect_right(self._first, number) - 1
        shard = self._shard(index)
        return shard.keys[number - self._first[index]], self._files.location(self._shards[index]), shard

    def _open(self, index: int) -> OpenShard:
        record = self._shards[index]
        path = self._files.location(record)
        if index == self._last_opened + 1:  # read in order, as in validation, which has no window to prefetch
            self.prefetch(range(index + 1, min(index + 1 + _NUM_AHEAD, len(self._shards))))
        self._last_opened = index
        folder, _ = self._files.find(record)
        remote = None if isinstance(folder, Path) else self._files.open(record)
        try:
            with remote or self._files.open(record) as file:
                shard = OpenShard(file, record)
        except (OSError, ValueError, tarfile.TarError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{path} cannot be read ({reason}); run captioning {self._job} again") from error
        found = {"bytes": len(shard.content), "samples": len(shard.keys)}
        recorded = {"bytes": record.num_bytes, "samples": record.num_samples}
        for what in found:
            if found[what] != recorded[what]:
                raise ValueError(
                    f"{path} has {found[what]} {what}, but its record says {recorded[what]}; "
                    f"run captioning {self._job} again"
                )
        return shard
