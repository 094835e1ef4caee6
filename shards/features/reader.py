"""Reader of feature sets: sample number -> features and captions, through memory-mapped tar files."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shards.features.manifest import FeatureManifest
from shards.reader import MOST_OPEN_SHARDS, DamagedSampleError, OpenShard, ShardReader
from shards.storage.folders import ShardFolder

_MAGIC_LENGTH = 8  # bytes of an .npy file's magic string and version; the header's length follows in two bytes


class DescribedSample(NamedTuple):
    """A sample without its features."""

    key: str
    shard: str
    captions: tuple[str, ...]


class FeatureReader:
    """Reads a split of a feature set; sample numbers are the same as in the shard set.

    Args:
        folder: folder of the feature set.
        manifest: manifest of the feature set.
        split: name of the split to read.
        most_open: number of shards that stay mapped.

    Raises:
        ValueError: there is no such split.
    """

    def __init__(
        self, folder: ShardFolder, manifest: FeatureManifest, split: str, *, most_open: int = MOST_OPEN_SHARDS
    ) -> None:
        self._reader = ShardReader(folder, manifest.of_split(split), job="extract", most_open=most_open)
        self.shard_sizes = self._reader.shard_sizes
        self.num_views, *shape = self._shape = manifest.shape
        self.view_shape = tuple(shape)
        self._num_view_bytes = 2 * shape[0] * shape[1]
        self._headers: set[bytes] = set()  # headers known to match the manifest, so that each is parsed once

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._reader)

    def describe(self, number: int) -> DescribedSample:
        """Return key, shard and captions of a sample.

        Raises:
            IndexError: there is no such sample.
            DamagedSampleError: the shard can be read, but this sample cannot.
            ValueError: the shard cannot be read, or differs from its record.
        """
        key, location, _ = self._reader.find(number)
        return DescribedSample(key, location.rpartition("/")[2], self.captions(number))

    def captions(self, number: int) -> tuple[str, ...]:
        """Return a sample's captions; raises as ``describe``."""
        return self._reader.captions(number)

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch shards in the background, as ``ShardReader.prefetch`` does."""
        self._reader.prefetch(shards)

    def copy_view(self, number: int, view: int, target: np.ndarray) -> None:
        """Copy one view of a sample; the other views are not read from the disk.

        Args:
            number: number of the sample.
            view: number of the view; 0 is the centre of the image.
            target: (R, C) float16 array that receives the view.

        Raises:
            IndexError, DamagedSampleError, ValueError: as in ``describe``.
        """
        key, location, shard = self._reader.find(number)
        try:
            offset = self._first_value(shard, key) + view * self._num_view_bytes
        except ValueError as error:
            raise DamagedSampleError(key, location, " ".join(str(error).split())) from error
        target[...] = np.frombuffer(shard.content, "<f2", target.size, offset).reshape(target.shape)

    def _first_value(self, shard: OpenShard, key: str) -> int:
        """Return the offset, in bytes, of a sample's first value in its shard.

        Raises:
            ValueError: the sample has no features, or other ones than the manifest says.
        """
        try:
            start, size = shard.span(key, "npy")
        except ValueError:
            raise ValueError("it has no features: its image could not be encoded when they were extracted") from None
        length = (
            _MAGIC_LENGTH
            + 2
            + int.from_bytes(shard.content[start + _MAGIC_LENGTH : start + _MAGIC_LENGTH + 2], "little")
        )
        header = shard.content[start : start + length]
        if header not in self._headers:
            self._require_expected(header)
            self._headers.add(header)
        if size != length + self.num_views * self._num_view_bytes:
            raise ValueError(f"its npy has {size} bytes, not the size of {self._shape} float16 features")
        return start + length

    def _require_expected(self, header: bytes) -> None:
        file = io.BytesIO(header)
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"its npy has format version {version}, not (1, 0)")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if (shape, is_fortran, dtype) != (self._shape, False, np.dtype("<f2")):
            raise ValueError(f"its npy holds {shape} {dtype}, not {self._shape} float16")
