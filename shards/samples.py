"""A captioned image before it is stored, and the record of one that is set aside."""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from shards.file_part import ImageFile

ImageId = int | str
"""An image's id: a number, as in COCO, or a text, such as the file's name below its folder."""

LONGEST_CAPTION = 5_000
"""Characters; people write some ten words, and a file that is no list of captions has far more."""
_NOT_IN_KEYS = re.compile(r"[^\w-]")


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedImage:
    """An image file and its human captions."""

    image_id: ImageId
    path: ImageFile
    captions: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict, hash=False)
    """Further values of the source, by the names of their columns, as JSON holds them."""

    @property
    def key(self) -> str:
        """Return the key in a shard."""
        return key_of(self.image_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """An annotation or image that is not stored, and why; ``key`` is the image's key, or an index in the file."""

    key: str
    reason: str


def key_of(image_id: ImageId) -> str:
    """Return the key of an image in a shard.

    A number has twelve digits, as in COCO. In a text, all but letters, digits, ``_`` and ``-`` is escaped, since a key
    ends at the first dot of a file's name: ``dogs/one.jpg`` becomes ``dogs%2Fone%2Ejpg``.
    """
    if isinstance(image_id, int):
        return f"{image_id:012d}"
    return _NOT_IN_KEYS.sub(lambda found: quote(found[0], safe="").replace(".", "%2E"), image_id)
