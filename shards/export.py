"""Export of a shard set: pictures and captions back into a folder in COCO layout."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shards.manifest import Manifest
from shards.reader import Sample, ShardReader
from shards.samples import key_of
from shards.storage.cache import DEFAULT_CACHE_GIB
from shards.storage.files import replace_file
from shards.storage.folders import ShardFolder, refuse_foreign

_CLAIM = ".exported-from"
"""File with the digest of the shard set that a folder is the export of."""
_SIGNATURES = (
    ("png", 0, b"\x89PNG"),
    ("webp", 8, b"WEBP"),
    ("gif", 0, b"GIF8"),
    ("tif", 0, b"II*\0"),
    ("tif", 0, b"MM\0*"),
    ("bmp", 0, b"BM"),
)


def export_split(
    folder: ShardFolder,
    manifest: Manifest,
    split: str,
    target: Path,
    *,
    progress: Callable[[int], None] = lambda count: None,
    cache_gib: float = DEFAULT_CACHE_GIB,
) -> int:
    """Write the pictures of a split to ``images/``, and then ``annotations/captions_<split>.json``.

    A picture has its key as name, in which special characters are escaped. An image id that is a text, which COCO's
    format does not know, becomes a number; the text is kept beside it as ``name``.

    Args:
        folder: folder of the shard set.
        manifest: manifest of the shard set.
        split: name of the split.
        target: folder to write; files of an earlier export of the same set are replaced.
        progress: callback, called with the number of images done.
        cache_gib: size limit in GiB of this node's copies of tars at URLs.

    Returns:
        The number of images.

    Raises:
        DamagedSampleError: a sample cannot be read.
        ValueError: a shard cannot be read, or the folder holds files that no export of this shard set has written,
            such as the photographs themselves.
    """
    _claim(target, manifest)
    (target / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    reader = ShardReader(folder, manifest.of_split(split), cache_gib=cache_gib)
    for number, sample in enumerate(_samples(reader), 1):
        name = f"{key_of(sample.image_id)}.{_suffix_of(sample.jpeg)}"
        replace_file(target / "images" / name, sample.jpeg)
        is_number = isinstance(sample.image_id, int)
        image_id = sample.image_id if is_number else number
        images.append({"id": image_id, "file_name": name, **({} if is_number else {"name": sample.image_id})})
        for caption in sample.captions:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "caption": caption})
        progress(number)
    content = json.dumps({"images": images, "annotations": annotations}, ensure_ascii=False, indent=0)
    replace_file(target / "annotations" / f"captions_{split}.json", content.encode())
    return len(images)


def _claim(target: Path, manifest: Manifest) -> None:
    """Write beforehand whose export a folder is, unless it says so; refuse any other folder that is not empty."""
    claim = target / _CLAIM
    is_ours = claim.is_file() and claim.read_text(errors="replace") == manifest.digest
    refuse_foreign(target, ("images", "annotations") if is_ours else ())
    if not is_ours:
        target.mkdir(parents=True, exist_ok=True)
        replace_file(claim, manifest.digest.encode())


def _suffix_of(content: bytes) -> str:
    """Return the suffix of an image file by its content, ``jpg`` if that does not tell."""
    return next((suffix for suffix, at, start in _SIGNATURES if content.startswith(start, at)), "jpg")


def _samples(reader: ShardReader) -> Iterator[Sample]:
    return (reader.read(number) for number in range(len(reader)))
