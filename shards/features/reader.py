"""Sample number -> features and captions, through memory-mapped tar files."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shards.features.manifest import FeatureManifest
from shards.reader import DamagedSampleError, OpenShard, ShardReader, parse_description
from shards.storage.folders import ShardFolder

_MAGIC_LENGTH = 8  # of an .npy file: its name and version; the length of the header follows, in two bytes


class DescribedSample(NamedTuple):
    """A sample but for its features."""

    key: str
    shard: str
    captions: tuple[str, ...]


class FeatureReader:
    """Reads a split of a feature set; samples have the numbers that they have in the shard set.

    Args:
        folder: the folder of the feature set.
        manifest: the manifest of the feature set.
        split: the split to read.

    Raises:
        ValueError: there is no such split.
    """

    def __init__(self, folder: ShardFolder, manifest: FeatureManifest, split: str) -> None:
        self._reader = ShardReader(folder, manifest.of_split(split), job="extract")
        self.shard_sizes = self._reader.shard_sizes
        self.num_views, *shape = self._shape = manifest.shape
        self.view_shape = tuple(shape)
        self._num_view_bytes = 2 * shape[0] * shape[1]
        self._headers: set[bytes] = set()  # those that say what is expected

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._reader)

    def describe(self, number: int) -> DescribedSample:
        """Return key, shard and captions of a sample.

        Raises:
            IndexError: there is no such sample.
            DamagedSampleError: the shard reads, and this sample of it does not.
            ValueError: the shard does not hold what its record says.
        """
        key, location, shard = self._reader.find(number)
        try:
            _, captions = parse_description(shard.part(key, "json"))
        except (ValueError, RecursionError) as error:  # the latter from JSON that is nested without end
            raise DamagedSampleError(key, location, " ".join(str(error).split())) from error
        return DescribedSample(key, location.rpartition("/")[2], captions)

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch shards in the background; as ``ShardReader`` does."""
        self._reader.prefetch(shards)

    def copy_view(self, number: int, view: int, target: np.ndarray) -> None:
        """Copy one view of a sample; the bytes of the others are not touched.

        Args:
            number: number of the sample.
            view: number of the view; 0 is the centre of the image.
            target: (R, C) float16, filled with the view.

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
        """Return where a sample's numbers begin in its shard.

        Raises:
            ValueError: it has none, or others than the manifest says.
        """
        try:
            start, size = shard.span(key, "npy")
        except ValueError:
            raise ValueError("it has no features, for its image did not decode when they were made") from None
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
            raise ValueError(f"its npy has {size} bytes, which are not those of {self._shape} features")
        return start + length

    def _require_expected(self, header: bytes) -> None:
        file = io.BytesIO(header)
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"its npy has format version {version}, not (1, 0)")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if (shape, is_fortran, dtype) != (self._shape, False, np.dtype("<f2")):
            raise ValueError(f"its npy holds {shape} {dtype}, not {self._shape} float16")
