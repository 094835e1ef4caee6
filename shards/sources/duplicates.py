"""Images of equal content in a source: across splits they make scores too good, within one they are harmless."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from shards.file_part import FilePart, ImageFile, size_of_file
from shards.samples import CaptionedImage
from shards.storage.files import sha256_of

_NUM_NAMED = 3
_PROBE_BYTES = 512
_BATCH_SIZE = 256
_NUM_READERS = 4  # threads that wait for a disk; with 16, taking turns costs twice the CPU time of reading


class Duplicate(NamedTuple):
    """Images of equal content, each with its split."""

    images: tuple[tuple[str, CaptionedImage], ...]

    @property
    def is_across_splits(self) -> bool:
        """Return whether the images are of several splits."""
        return len({split for split, _ in self.images}) > 1

    def __str__(self) -> str:
        """Return the files' names with their splits."""
        more = f" and {len(self.images) - _NUM_NAMED} more" if len(self.images) > _NUM_NAMED else ""
        return " = ".join(f"{image.path.name} ({split})" for split, image in self._named()) + more

    def _named(self) -> Sequence[tuple[str, CaptionedImage]]:
        """Return the first images, of several splits if there are."""
        other = next((one for one in self.images if one[0] != self.images[0][0]), self.images[1])
        rest = [one for one in self.images if one not in (self.images[0], other)]
        return (self.images[0], other, *rest)[:_NUM_NAMED]


def find_duplicates(splits: Mapping[str, Sequence[CaptionedImage]]) -> list[Duplicate]:
    """Return the images whose files have equal bytes.

    Few files are read whole: those of equal size, and of them those of equal bytes in the middle.

    Raises:
        ValueError: a file cannot be read.
    """
    images = [image for found in splits.values() for image in found]
    numbers, groups = np.arange(len(images)), np.zeros(len(images), np.int64)
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        for sign in (size_of_file, _middle, _whole):
            values = _values([images[number] for number in numbers], sign, pool)
            numbers, groups = _alike(numbers, groups, np.array(values))
    split_of = [split for split, found in splits.items() for _ in found]
    ends = np.flatnonzero(np.diff(groups)) + 1
    equal = [group for group in np.split(numbers, ends) if len(group)]
    return [Duplicate(tuple((split_of[number], images[number]) for number in group)) for group in equal]


def _values(
    images: Sequence[CaptionedImage], sign: Callable[[ImageFile], int | str], pool: ThreadPoolExecutor
) -> list[int | str]:
    # A task of the pool takes a kilobyte: one for each of a million images would take more memory than the images.
    batches = [images[start : start + _BATCH_SIZE] for start in range(0, len(images), _BATCH_SIZE)]
    found = pool.map(lambda batch: [_of(image, sign) for image in batch], batches)
    return [value for values in found for value in values]


def _alike(numbers: np.ndarray, groups: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the images that a sign does not tell apart, and their new groups, in order of the first.

    Args:
        numbers: (N,) int64 numbers of images.
        groups: (N,) int64 groups of images that no sign has told apart yet.
        values: (N,) sign of each image.
    """
    if not len(numbers):
        return numbers, groups
    order = np.lexsort((values, groups))  # which keeps the images of a group in order
    differs = (np.diff(groups[order]) != 0) | (values[order][1:] != values[order][:-1])
    starts = np.concatenate(([0], np.flatnonzero(differs) + 1, [len(order)]))
    sizes = np.diff(starts)
    first = np.repeat(numbers[order][starts[:-1]], sizes)
    kept = np.repeat(sizes > 1, sizes)
    numbers, first = numbers[order][kept], first[kept]
    order = np.lexsort((numbers, first))
    return numbers[order], first[order]


def _of(image: CaptionedImage, sign: Callable[[ImageFile], int | str]) -> int | str:
    try:
        return sign(image.path)
    except OSError as error:
        raise ValueError(
            f"{image.path} (image {image.image_id}) cannot be read ({error.strerror}); "
            "fix the source, then run the same command again"
        ) from error


def _middle(path: ImageFile) -> int:
    """Return a hash of some bytes in the middle, where compressed images differ."""
    if isinstance(path, FilePart):
        return hash(path.read_some(path.num_bytes // 2, _PROBE_BYTES))
    file = os.open(path, os.O_RDONLY)
    try:
        return hash(os.pread(file, _PROBE_BYTES, os.fstat(file).st_size // 2))
    finally:
        os.close(file)


def _whole(path: ImageFile) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if isinstance(path, FilePart) else sha256_of(path)


def refuse_leaks(duplicates: Sequence[Duplicate]) -> None:
    """Refuse equal images in different splits.

    Raises:
        ValueError: there are some; the message names the first.
    """
    leaks = [one for one in duplicates if one.is_across_splits]
    if leaks:
        more = f" (and {len(leaks) - 3} more)" if len(leaks) > 3 else ""
        shown = "; ".join(map(str, leaks[:3]))
        raise ValueError(
            f"equal images are in different splits, which makes scores too good: {shown}{more}; "
            "remove them from one, or keep them with --on-leak keep"
        )
