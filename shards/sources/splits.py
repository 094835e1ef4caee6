"""Splits of a source: their usual names, and how images without splits are dealt to some."""

import hashlib
from collections.abc import Iterable, Sequence

from shards.samples import CaptionedImage, ImageId

DEALT = ("train", "val", "test")
_USUAL = {
    "train": ("train", "training", "restval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_NAMES = {name: usual for usual, names in _USUAL.items() for name in names}


def usual_split(name: str) -> str:
    """Return the usual name of a split: ``train``, ``val`` or ``test``, or the name itself."""
    return _NAMES.get(name.strip().lower(), name.strip())


def is_split(name: str) -> bool:
    """Return whether a folder of this name holds a split."""
    return name.lower() in _NAMES


def parse_ratio(text: str) -> tuple[float, ...]:
    """Return the shares of ``train``, ``val`` and ``test`` from a text such as ``90:5:5`` or ``9:1``; their sum is 1.

    Raises:
        ValueError: it is not two or three numbers above 0.
    """
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= len(DEALT) or not all(0 < number < float("inf") for number in numbers):
        raise ValueError(f"{text!r} is no ratio of train, val and test; give two or three numbers, such as 90:5:5")
    return tuple(number / sum(numbers) for number in numbers)


def deal(images: Iterable[CaptionedImage], shares: tuple[float, ...]) -> dict[str, tuple[CaptionedImage, ...]]:
    """Deal images to ``train``, ``val`` and ``test`` by a hash of their ids, so that no image ever changes its split.

    Args:
        images: images to deal.
        shares: shares of the splits, as ``parse_ratio`` returns them.
    """
    dealt: dict[str, list[CaptionedImage]] = {}
    for image in images:
        dealt.setdefault(_split_of(image.image_id, shares), []).append(image)
    return {split: tuple(dealt[split]) for split in DEALT if split in dealt}


def deal_whole(names: Sequence[str], shares: tuple[float, ...]) -> dict[str, str]:
    """Return the split of each file of many samples, by a hash of its name; each split gets one at least.

    Args:
        names: paths or URLs of the files.
        shares: shares of the splits, as ``parse_ratio`` returns them.

    Raises:
        ValueError: there are fewer files than splits.
    """
    if len(names) < len(shares):
        raise ValueError(
            f"too few files to deal to {len(shares)} splits ({len(names)}); name the splits yourself, as in val=FILE"
        )
    ranked = sorted(names, key=lambda name: (hashlib.sha256(name.rpartition("/")[2].encode()).digest(), name))
    sizes = [max(1, round(share * len(names))) for share in shares[1:]]
    while sum(sizes) >= len(names):
        sizes[sizes.index(max(sizes))] -= 1
    dealt = [DEALT[0]] * (len(names) - sum(sizes))
    dealt += [split for split, size in zip(DEALT[1:], sizes, strict=False) for _ in range(size)]
    return dict(zip(ranked, dealt, strict=True))


def _split_of(image_id: ImageId, shares: tuple[float, ...]) -> str:
    left = int.from_bytes(hashlib.sha256(str(image_id).encode()).digest()[:8], "big") / 2**64
    for split, share in zip(DEALT, shares, strict=False):
        left -= share
        if left < 0:
            return split
    return DEALT[len(shares) - 1]
