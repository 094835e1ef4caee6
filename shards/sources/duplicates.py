"""Images of equal content in a source: across splits they make scores too good, within one they are harmless."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from shards.file_part import FilePart, ImageFile, size_of_file
from shards.samples import CaptionedImage
from shards.storage.files import sha256_of

_NUM_NAMED = 3
_PROBE_BYTES = 512
_BATCH_SIZE = 256
_NUM_READERS = 16  # threads that mostly wait for a disk


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
    members = [_Member(split, image, 0) for split in splits for image in splits[split]]
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        for sign in (size_of_file, _middle, _whole):
            members = _alike(members, sign, pool)
    groups: dict[int, list[tuple[str, CaptionedImage]]] = {}
    for split, image, group in members:
        groups.setdefault(group, []).append((split, image))
    return [Duplicate(tuple(group)) for group in groups.values()]


class _Member(NamedTuple):
    """An image, its split, and the number of its group: images that no sign has told apart yet."""

    split: str
    image: CaptionedImage
    group: int


def _alike(members: Sequence[_Member], sign: Callable[[ImageFile], object], pool: ThreadPoolExecutor) -> list[_Member]:
    """Return the members of the groups of several that a sign leaves, group by group."""
    # A task of the pool takes a kilobyte: one for each of a million images would take more memory than the images.
    batches = [members[start : start + _BATCH_SIZE] for start in range(0, len(members), _BATCH_SIZE)]
    found: defaultdict[tuple[int, object], list[_Member]] = defaultdict(list)
    for batch, values in zip(
        batches, pool.map(lambda batch: [_of(one.image, sign) for one in batch], batches), strict=True
    ):
        for member, value in zip(batch, values, strict=True):
            found[member.group, value].append(member)
    several = [group for group in found.values() if len(group) > 1]
    return [member._replace(group=number) for number, group in enumerate(several) for member in group]


def _of(image: CaptionedImage, sign: Callable[[ImageFile], object]) -> object:
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
