"""A captioned image before it is stored, and the record of one that is set aside."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedImage:
    """An image file and its human captions."""

    image_id: int
    path: Path
    captions: tuple[str, ...]

    @property
    def key(self) -> str:
        """Return the key in a shard: the image id in twelve digits, as in COCO."""
        return key_of(self.image_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """An annotation or image that is not stored, and why; ``key`` is the image's key, or an index in the file."""

    key: str
    reason: str


def key_of(image_id: int) -> str:
    """Return the key of an image in a shard: its id in twelve digits, as in COCO."""
    return f"{image_id:012d}"
