"""Reader of a Karpathy split file -> checked, captioned images.

Source: Karpathy and Li, 2015, Deep Visual-Semantic Alignments (https://arxiv.org/abs/1412.2306). Its ``restval`` images
are used for training.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shards.samples import CaptionedImage, SetAside, key_of
from shards.sources.annotations import Annotations, fault_of
from shards.sources.json_lists import read_lists
from shards.sources.rows import Row, accept, require_folder, require_splits, unrepeated, usable
from shards.storage.files import sha256_of

_OF_OTHERS = ("dataset_info.json", "dataset_dict.json")  # of Hugging Face's library


def read_karpathy(source: Path, file: Path, splits: Sequence[str] = (), *, skip_bad: bool = False) -> Annotations:
    """Read the splits of a Karpathy split file (``dataset_coco.json``, ``dataset_flickr8k.json``, ...).

    Args:
        source: folder that holds the images, or has them in ``images/``, by ``filepath`` or by name alone; or a folder
            of COCO 2017.
        file: path of the split file.
        splits: names of the splits to read; all if empty.
        skip_bad: whether faulty annotations are set aside; otherwise they are errors.

    Raises:
        FileNotFoundError: the folder, the file or a split is missing.
        ValueError: the file is damaged, an image is faulty and ``skip_bad`` is off, or a split has no usable image.
    """
    require_folder(source)
    set_aside: list[SetAside] = []
    rows = _karpathy_rows(file, set_aside)
    if not rows:
        accept((), str(file), set_aside, skip_bad=skip_bad)
    require_splits(file, rows, splits)
    found: dict[str, tuple[CaptionedImage, ...]] = {}
    for split in sorted(set(splits) or rows):
        images = usable(rows[split], [source, source / "images"], set_aside)
        found[split] = accept(images, f"{file}, split {split}", set_aside, skip_bad=skip_bad)
    return Annotations(splits=found, set_aside=tuple(set_aside), files={file.name: sha256_of(file)})


def find_split_file(source: Path) -> Path | None:
    """Return the only ``dataset_*.json`` in a folder or in its ``annotations/``; None if there is none, or several."""
    found = split_files(source)
    return found[0] if len(found) == 1 else None


def split_files(source: Path) -> list[Path]:
    """Return all ``dataset_*.json`` in a folder and in its ``annotations/``."""
    paths = [*source.glob("dataset_*.json"), *(source / "annotations").glob("dataset_*.json")]
    return sorted(path for path in paths if path.name not in _OF_OTHERS)


def _karpathy_rows(file: Path, set_aside: list[SetAside]) -> dict[str, list[Row]]:
    """Return the images of a Karpathy split file by split, sorted by image id."""
    form = {"filename": str, "split": str, "sentences": list}
    images: list[dict[str, Any]] = []
    for name, index, image in read_lists(file, ("images",), form="a Karpathy split file"):
        fault = fault_of(image, form)
        if not fault:
            identity = "cocoid" if "cocoid" in image else "imgid"
            faults = [fault_of({"filepath": "", **image}, {identity: int, "filepath": str})]
            faults += [fault_of(sentence, {"raw": str}) for sentence in image["sentences"]]
            fault = next(filter(None, faults), "")
            image["id"], image["file_name"] = image.get(identity), image["filename"]
        if fault:
            set_aside.append(SetAside(key=f"{name}[{index}]", reason=f"{name}[{index}] {fault}"))
        else:
            images.append(image)
    rows: dict[str, list[Row]] = {}
    for image in sorted(unrepeated(images, set_aside), key=lambda image: image["id"]):
        split = "train" if image["split"] == "restval" else image["split"]
        names = [str(Path(image.get("filepath", "")) / image["filename"]), image["filename"]]
        if "cocoid" in image:  # COCO 2017 has the photographs of COCO 2014, named by their ids
            names += [f"{folder}/{key_of(image['id'])}.jpg" for folder in ("train2017", "val2017")]
        rows.setdefault(split, []).append(Row(image["id"], tuple(names), [one["raw"] for one in image["sentences"]]))
    return rows
