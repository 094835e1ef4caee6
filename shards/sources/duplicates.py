"""Images of equal content in a source: across splits they make scores too good, within one they are harmless."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from shards.samples import CaptionedImage
from shards.storage.files import sha256_of

_NUM_NAMED = 3
_PROBE_BYTES = 4096
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
    groups: list[list[tuple[str, CaptionedImage]]] = [[(split, image) for split in splits for image in splits[split]]]
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        for sign in (_size, _middle, sha256_of):
            groups = [part for group in groups for part in _parts(group, sign, pool)]
    return [Duplicate(tuple(group)) for group in groups]


def _parts(
    group: Sequence[tuple[str, CaptionedImage]], sign: Callable[[Path], object], pool: ThreadPoolExecutor
) -> Iterable[list[tuple[str, CaptionedImage]]]:
    found: defaultdict[object, list[tuple[str, CaptionedImage]]] = defaultdict(list)
    for member, value in zip(group, pool.map(lambda member: _of(member[1], sign), group), strict=True):
        found[value].append(member)
    return [part for part in found.values() if len(part) > 1]


def _of(image: CaptionedImage, sign: Callable[[Path], object]) -> object:
    try:
        return sign(image.path)
    except OSError as error:
        raise ValueError(
            f"{image.path} (image {image.image_id}) cannot be read ({error.strerror}); "
            "fix the source, then run the same command again"
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        return hashlib.sha256(file.read(_PROBE_BYTES)).digest()


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
