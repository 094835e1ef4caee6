"""Reader of a folder in COCO layout -> checked, captioned images.

Source: Chen et al., 2015, Microsoft COCO Captions (https://arxiv.org/abs/1504.00325).
"""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.samples import CaptionedImage, SetAside, key_of
from shards.sources.annotations import Annotations, fault_of
from shards.sources.json_lists import Entry, read_lists
from shards.sources.rows import Row, accept, require_folder, require_splits, unrepeated, usable
from shards.storage.files import sha256_of

_FORMS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str},
    "annotations": {"image_id": int, "caption": str},
}
_MOST_LICENSES, _LONGEST_LICENSE = 20, 200
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
    licenses: list[str] = []
    if files is None:
        files = _annotation_files(source)
    require_splits(source, files, splits)
    chosen = {split: file for split, file in files.items() if not splits or split in splits}
    for split, file in chosen.items():
        rows = _coco_rows(file, set_aside, licenses)
        folders = [source / "images", source / file.stem.removeprefix("captions_")]
        images = usable(rows, folders, set_aside)
        found[split] = accept(images, str(file), set_aside, skip_bad=skip_bad)
    digests = {file.name: sha256_of(file) for file in chosen.values()}
    named = tuple(dict.fromkeys(filter(None, licenses)))[:_MOST_LICENSES]
    return Annotations(splits=found, set_aside=tuple(set_aside), files=digests, licenses=named)


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


def _entries(file: Path) -> Iterator[Entry]:
    return read_lists(file, tuple(_FORMS), form="a COCO captions file", optional=("licenses",))


def _license_text(entry: object) -> str:
    """Return the name and the address of an entry of ``licenses``; empty if it has no name."""
    if fault_of(entry, {"name": str}) or not isinstance(entry, dict):
        return ""
    address = "" if fault_of(entry, {"url": str}) else entry["url"]
    text = f"{entry['name']} ({address})" if address else entry["name"]
    return " ".join(text.split())[:_LONGEST_LICENSE]


def _coco_rows(file: Path, set_aside: list[SetAside], licenses: list[str]) -> Iterator[Row]:
    """Yield the images of a COCO captions file, sorted by image id; what is wrong and its licences go to the lists."""
    images: list[dict[str, Any]] = []
    captions: dict[int, list[str]] = {}
    listed: set[int] = set()
    for name, index, value in _entries(file):
        if name == "licenses":
            licenses.append(_license_text(value))
            continue
        if fault := fault_of(value, _FORMS[name]):
            if name == "images" and isinstance(value, dict) and type(value.get("id")) is int:
                listed.add(value["id"])
            set_aside.append(SetAside(key=f"{name}[{index}]", reason=f"{name}[{index}] {fault}"))
        elif name == "images":
            listed.add(value["id"])
            images.append({"id": value["id"], "file_name": value["file_name"]})
        else:
            captions.setdefault(value["image_id"], []).append(value["caption"])
    if not captions.keys() <= listed:
        set_aside.extend(_of_no_image(file, listed))
    kept = unrepeated(images, set_aside)
    images.clear()
    for image in sorted(kept, key=lambda image: image["id"]):
        yield Row(image["id"], (image["file_name"],), captions.pop(image["id"], []))


def _of_no_image(file: Path, listed: Container[int]) -> Iterator[SetAside]:
    """Yield the captions of images that the file does not list, for which it is read once more."""
    for name, index, value in _entries(file):
        if name == "annotations" and not fault_of(value, _FORMS[name]) and value["image_id"] not in listed:
            image_id = value["image_id"]
            reason = f"annotations[{index}] refers to image {image_id}, which is not in images[]"
            yield SetAside(key=key_of(image_id), reason=reason)
