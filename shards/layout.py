"""Layout of the samples in WebDataset tars: which of a sample's files is its image, and where its captions are.

``convert`` writes ``KEY.jpg`` and ``KEY.json``. Tars of other programs, which ``index`` uses in place, have other image
formats, and captions in a text file or in a field of the JSON. A sample of theirs is read as if ``convert`` had written
it: its id is its key, and the JSON's other fields become its columns.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from shards.samples import LONGEST_CAPTION, ImageId

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")
JPEG_SUFFIXES = ("jpg", "jpeg")
CONVERTED, TEXT = "json", "txt"
"""Captions as ``convert`` stores them, and a text file with a caption a line; the third form is ``json.FIELD``."""
# Splits names as webdataset does: the key ends at the first dot of the file name; without a dot there is no sample.
_KEY_AND_SUFFIX = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class TarSource:
    """Where the tar of an indexed shard is, and how its samples are read."""

    location: str
    """URL, absolute path, or path relative to the folder of the manifest."""
    captions: str
    """Where the captions are: ``json``, ``txt`` or ``json.FIELD``."""
    id_prefix: str = ""
    """Text before a sample's key in its id, where tars share keys."""


def split_name(name: str) -> tuple[str, str] | None:
    """Return the key and the suffix, in lower case, of a file in a tar; None if it belongs to no sample.

    A name that is not UTF-8 belongs to none: no text file could hold its key.
    """
    found = _KEY_AND_SUFFIX.fullmatch(name)
    return (found[1], found[2].lower()) if found and (name.isascii() or not _SURROGATE.search(name)) else None


def caption_suffix(captions: str) -> str:
    """Return the suffix of the file that holds a sample's captions."""
    return captions.partition(".")[0]


def is_sample(suffixes: Collection[str], captions: str) -> bool:
    """Return whether files of these suffixes are a sample: an image, and the file of its captions."""
    return caption_suffix(captions) in suffixes and any(suffix in suffixes for suffix in IMAGE_SUFFIXES)


def captions_in(content: bytes, captions: str) -> tuple[str, ...]:
    """Return the usable captions in a sample's file, with single spaces between words.

    Args:
        content: content of the file.
        captions: where the captions are, as in ``TarSource``.

    Raises:
        ValueError: there are none, or the file is not of that form.
    """
    texts = _lines(content) if captions == TEXT else _texts_of_field(content, captions)
    written = [text for text in (" ".join(text.split()) for text in texts) if text]
    usable = tuple(text for text in written if len(text) <= LONGEST_CAPTION and not _SURROGATE.search(text))
    if usable:
        return usable
    what = f"its {caption_suffix(captions)}"
    if written:
        raise ValueError(f"{what} has no caption of at most {LONGEST_CAPTION} characters")
    raise ValueError(f"{what} has no caption")


def description_of(key: str, files: Mapping[str, bytes], source: TarSource) -> bytes:
    """Return the JSON of a sample as ``convert`` would store it.

    Args:
        key: key of the sample.
        files: contents of its ``.txt`` and ``.json``, of those that it has, by suffix.
        source: layout of the sample.

    Raises:
        ValueError: it has no usable caption.
    """
    content = files[caption_suffix(source.captions)]
    if source.captions == CONVERTED:
        return content
    captions, columns = captions_in(content, source.captions), _columns(files.get("json", b"{}"))
    columns.pop(source.captions.partition(".")[2], None)
    size = {name: columns[name] for name in ("width", "height") if isinstance(columns.get(name), int)}
    description = {"image_id": f"{source.id_prefix}{key}", "captions": captions, **size}
    return json.dumps(description | ({"columns": columns} if columns else {}), ensure_ascii=False).encode()


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


def _lines(content: bytes) -> list[str]:
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError("its txt is not UTF-8") from None


def _texts_of_field(content: bytes, captions: str) -> list[str]:
    if captions == CONVERTED:
        return list(parse_description(content)[1])
    field, found = captions.partition(".")[2], _parsed(content)
    value = found.get(field)
    if value is None:
        raise ValueError(f"its json has no {field}")
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"its json has a {field} that is neither a text nor a list of texts")
    return texts


def _columns(content: bytes) -> dict[str, Any]:
    try:
        return _parsed(content)
    except ValueError:
        return {}  # the captions are elsewhere, and nothing else is needed


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: JSON that is nested too deep
        raise ValueError("its json is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("its json is not an object")
    return found
