"""Export of a shard set: pictures and captions back into a folder in COCO layout."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shards.manifest import Manifest
from shards.reader import Sample, ShardReader
from shards.storage.files import replace_file
from shards.storage.folders import ShardFolder, refuse_foreign


def export_split(
    folder: ShardFolder,
    manifest: Manifest,
    split: str,
    target: Path,
    *,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Write the pictures of a split to ``images/``, and then ``annotations/captions_<split>.json``.

    A picture has its key as name. An image id that is a text, which COCO's format does not know, becomes a number; the
    text is kept beside it as ``name``.

    Args:
        folder: folder of the shard set.
        manifest: manifest of the shard set.
        split: name of the split.
        target: folder to write; files of an earlier export are replaced.
        progress: callback, called with the number of images done.

    Returns:
        The number of images.

    Raises:
        DamagedSampleError: a sample cannot be read.
        ValueError: a shard cannot be read, or the folder holds files that an export does not write.
    """
    refuse_foreign(target, ("images", "annotations"))
    (target / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(_samples(ShardReader(folder, manifest.of_split(split))), 1):
        name = f"{sample.key}.jpg"
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


def _samples(reader: ShardReader) -> Iterator[Sample]:
    return (reader.read(number) for number in range(len(reader)))
