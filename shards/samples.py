"""A captioned image on its way into a shard, and what is set aside with its reason."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedImage:
    """An image file and what people wrote about it."""

    image_id: int
    path: Path
    captions: tuple[str, ...]

    @property
    def key(self) -> str:
        """Return the key in a shard: COCO's twelve digits."""
        return key_of(self.image_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """An annotation or image that is not stored, and why; the key is the image's, or its index in the file."""

    key: str
    reason: str


def key_of(image_id: int) -> str:
    """Return the key of an image in a shard: its id in COCO's twelve digits."""
    return f"{image_id:012d}"
