"""Reader of a folder in COCO layout -> checked, captioned images.

Source: Chen et al., 2015, Microsoft COCO Captions (https://arxiv.org/abs/1504.00325).
"""

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from shards.samples import CaptionedImage, SetAside, key_of
from shards.sources.annotations import Annotations, well_formed
from shards.sources.rows import Row, accept, read_json, require_folder, require_splits, unrepeated, usable
from shards.storage.files import sha256_of

_ANNOTATION_NAME = re.compile(r"captions_(.+?)(?:19\d\d|20\d\d)?")


def read_coco(
    source: Path, splits: Sequence[str] = (), *, skip_bad: bool = False, files: Mapping[str, Path] | None = None
) -> Annotations:
    """Read every ``annotations/captions_<split>*.json`` of a COCO-layout folder.

    Args:
        source: folder with ``annotations/`` and either ``images/`` or one named by what follows ``captions_``, such as
            ``train2017/``.
        splits: names of the splits to read, such as ``train``; all if empty.
        skip_bad: whether faulty annotations are set aside; otherwise they are errors.
        files: annotation file of each split, used instead of those in ``annotations/``.

    Raises:
        FileNotFoundError: the folder, its annotations or a split is missing.
        ValueError: an annotation file is damaged, an annotation is faulty and ``skip_bad`` is off, or a split has no
            usable image.
    """
    found: dict[str, tuple[CaptionedImage, ...]] = {}
    set_aside: list[SetAside] = []
    if files is None:
        files = _annotation_files(source)
    require_splits(source, files, splits)
    chosen = {split: file for split, file in files.items() if not splits or split in splits}
    for split, file in chosen.items():
        content = read_json(file, ("images", "annotations"), form="a COCO captions file")
        rows = _coco_rows(content, set_aside)
        folders = [source / "images", source / file.stem.removeprefix("captions_")]
        images = usable(rows, folders, set_aside)
        found[split] = accept(images, str(file), set_aside, skip_bad=skip_bad)
    digests = {file.name: sha256_of(file) for file in chosen.values()}
    return Annotations(splits=found, set_aside=tuple(set_aside), files=digests)


def _annotation_files(source: Path) -> dict[str, Path]:
    require_folder(source)
    paths = sorted((source / "annotations").glob("captions_*.json"))
    if not paths:
        raise FileNotFoundError(
            f"{source / 'annotations'} holds no captions_<split>.json; give a folder in COCO layout: "
            "images/ or <split>2017/ beside annotations/"
        )
    files: dict[str, Path] = {}
    for path in paths:
        name = _ANNOTATION_NAME.fullmatch(path.stem)
        split = name[1] if name else path.stem
        if split in files:
            raise ValueError(f"{path} and {files[split].name} are both for split {split}; keep one year per folder")
        files[split] = path
    return files


def _coco_rows(content: dict[str, Any], set_aside: list[SetAside]) -> list[Row]:
    """Return the images of a COCO captions file, sorted by image id."""
    images = well_formed(content, "images", {"id": int, "file_name": str}, set_aside)
    annotations = well_formed(content, "annotations", {"image_id": int, "caption": str}, set_aside)
    listed = {image["id"] for image in content["images"] if isinstance(image, dict) and type(image.get("id")) is int}
    for index, annotation in annotations:
        image_id = annotation["image_id"]
        if image_id not in listed:
            reason = f"annotations[{index}] refers to image {image_id}, which is not in images[]"
            set_aside.append(SetAside(key=key_of(image_id), reason=reason))
    coco: Any = COCO()  # createIndex adds attributes that the class does not declare
    coco.dataset = {
        "images": unrepeated([image for _, image in images], set_aside),
        # createIndex needs an id for each annotation; the file's own ids are not used and may be missing.
        "annotations": [{**annotation, "id": index} for index, annotation in annotations],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco.createIndex()
    return [
        Row(image_id, (image["file_name"],), [row["caption"] for row in coco.imgToAnns.get(image_id, [])])
        for image_id, image in sorted(coco.imgs.items())
    ]
