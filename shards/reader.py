"""Reader of shard sets: sample number -> JPEG bytes and captions, through memory-mapped tar files."""

import json
import mmap
import re
import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shards.manifest import ShardRecord
from shards.samples import ImageId
from shards.storage.folders import ShardFolder
from shards.storage.tar_index import index_members

_IMAGE_SUFFIXES = ("jpg", "jpeg")
# Each open shard holds a file descriptor, and a process commonly has 1,024; training reads one window at a time.
_MAX_OPEN_SHARDS = 256
_NUM_AHEAD = 2  # shards to fetch beyond the current one when they are read in order
# Splits names as webdataset does: the key ends at the first dot of the file name; without a dot there is no sample.
_KEY_AND_SUFFIX = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)


class Sample(NamedTuple):
    """One image with its captions, as stored in a shard."""

    key: str
    shard: str
    image_id: ImageId
    jpeg: bytes
    captions: tuple[str, ...]


class DamagedSampleError(ValueError):
    """A sample that cannot be read, although its shard can.

    Attributes:
        key: key of the sample.
        shard: name of its shard.
        reason: short description of the fault.
    """

    def __init__(self, key: str, location: str, reason: str) -> None:
        super().__init__(key, location, reason)
        self.key, self.shard, self.reason = key, location.rpartition("/")[2], reason
        self._location = location

    def __str__(self) -> str:
        """Return the sample, the reason and the remedy."""
        return f"sample {self.key} of {self._location} is damaged ({self.reason}); run captioning convert again"


class OpenShard:
    """A memory-mapped tar file, with an index of its samples."""

    def __init__(self, file: BinaryIO) -> None:
        # The map keeps the file open, and with it the lock that protects a cached copy from removal.
        self.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._members: dict[str, dict[str, tuple[int, int]]] = {}
        for member in index_members(self.content, file):
            if name := _KEY_AND_SUFFIX.fullmatch(member.name):
                self._members.setdefault(name[1], {})[name[2].lower()] = (member.offset, member.size)
        self.keys = list(self._members)

    def has(self, key: str, suffix: str) -> bool:
        """Return whether the sample has a file with this suffix."""
        return suffix in self._members[key]

    def span(self, key: str, *suffixes: str) -> tuple[int, int]:
        """Return offset and size, in bytes, of a sample's file with one of the suffixes.

        Raises:
            ValueError: the sample has no such file.
        """
        for suffix in suffixes:
            if suffix in self._members[key]:
                return self._members[key][suffix]
        raise ValueError(f"it has no {' or '.join(suffixes)}")

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
    """

    def __init__(self, folder: ShardFolder, shards: Sequence[ShardRecord], *, job: str = "convert") -> None:
        self._folder, self._shards, self._job = folder, list(shards), job
        self.shard_sizes = [shard.num_samples for shard in shards]
        self._first = array("q", accumulate(self.shard_sizes, initial=0))
        max_open = _MAX_OPEN_SHARDS if isinstance(folder, Path) else min(_MAX_OPEN_SHARDS, folder.max_open(shards))
        self._shard = lru_cache(maxsize=max_open)(self._open)
        self._last_opened = -1

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._first[-1]

    def __reduce__(self) -> tuple:
        """Pickle without the maps."""
        return partial(ShardReader, job=self._job), (self._folder, self._shards)

    def read(self, number: int) -> Sample:
        """Return the sample with this number.

        Raises:
            IndexError: there is no such sample.
            DamagedSampleError: the shard can be read, but this sample cannot.
            ValueError: the shard cannot be read, or differs from its record.
        """
        key, location, shard = self.find(number)
        try:
            image_id, captions = parse_description(shard.part(key, "json"))
            return Sample(key, location.rpartition("/")[2], image_id, shard.part(key, *_IMAGE_SUFFIXES), captions)
        except (ValueError, RecursionError) as error:  # RecursionError: JSON that is nested too deep
            raise DamagedSampleError(key, location, " ".join(str(error).split())) from error

    def read_image(self, number: int) -> bytes:
        """Return the content of a sample's image file; raises as ``read``."""
        key, location, shard = self.find(number)
        try:
            return shard.part(key, *_IMAGE_SUFFIXES)
        except ValueError as error:
            raise DamagedSampleError(key, location, str(error)) from error

    def captions(self, number: int) -> tuple[str, ...]:
        """Return a sample's captions without reading its image; raises as ``read``."""
        key, location, shard = self.find(number)
        try:
            return parse_description(shard.part(key, "json"))[1]
        except (ValueError, RecursionError) as error:  # RecursionError: JSON that is nested too deep
            raise DamagedSampleError(key, location, " ".join(str(error).split())) from error

    def describe(self, number: int) -> tuple[str, bytes]:
        """Return a sample's key and its JSON as stored, which is empty if there is none; raises as ``find``."""
        key, _, shard = self.find(number)
        return key, shard.part(key, "json") if shard.has(key, "json") else b""

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch shards into the node's cache in the background, in this order; does nothing for a local folder.

        Args:
            shards: indices into ``shard_sizes``.
        """
        if not isinstance(self._folder, Path):
            self._folder.prefetch([self._shards[index] for index in shards])

    def find(self, number: int) -> tuple[str, str, OpenShard]:
        """Return a sample's key, the path or URL of its shard, and the shard.

        Raises:
            IndexError, ValueError: as in ``read``.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} does not exist; there are {len(self)}")
        index = bisect_right(self._first, number) - 1
        shard = self._shard(index)
        return shard.keys[number - self._first[index]], f"{self._folder}/{self._shards[index].name}", shard

    def _open(self, index: int) -> OpenShard:
        record = self._shards[index]
        path = f"{self._folder}/{record.name}"
        if index == self._last_opened + 1:  # read in order, as in validation, which has no window to prefetch
            self.prefetch(range(index + 1, min(index + 1 + _NUM_AHEAD, len(self._shards))))
        self._last_opened = index
        remote = None if isinstance(self._folder, Path) else self._folder.open(record)
        try:
            with remote or Path(path).open("rb") as file:
                shard = OpenShard(file)
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


def parse_description(content: bytes) -> tuple[ImageId, tuple[str, ...]]:
    """Return the image id and the captions from a sample's JSON.

    Raises:
        ValueError: it is not JSON, or lacks one of them.
    """
    description = json.loads(content)
    if not isinstance(description, dict):
        raise ValueError("its json is not an object")
    image_id, captions = description.get("image_id"), description.get("captions")
    if not isinstance(image_id, int | str) or isinstance(image_id, bool) or image_id == "":
        raise ValueError("its json has no image_id, a number or a text")
    if not isinstance(captions, list) or not captions or not all(isinstance(caption, str) for caption in captions):
        raise ValueError("its json has no captions, a list of strings")
    return image_id, tuple(captions)
