"""Reader of caption annotations: COCO JSON or a Karpathy split file -> checked, captioned images.

Sources: Chen et al., 2015, Microsoft COCO Captions (https://arxiv.org/abs/1504.00325); Karpathy and Li, 2015, Deep
Visual-Semantic Alignments (https://arxiv.org/abs/1412.2306). The latter's ``restval`` images are used for training.
"""

import contextlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pycocotools.coco import COCO

from shards.samples import CaptionedImage, SetAside, key_of
from shards.sources.annotations import Annotations, fault_of, well_formed
from shards.sources.image_files import ImageFiles, is_inside, why_outside
from shards.storage.files import sha256_of

_LONGEST_CAPTION = 5_000  # characters; people write some ten words, and a file that is no list of captions far more
_ANNOTATION_NAME = re.compile(r"captions_(.+?)(?:19\d\d|20\d\d)?")


class _Row(NamedTuple):
    """One image of an annotation file; ``names`` are the file names that it may have."""

    image_id: int
    names: tuple[str, ...]
    captions: list[str]


def read_coco(source: Path, splits: Sequence[str] = (), *, skip_bad: bool = False) -> Annotations:
    """Read every ``annotations/captions_<split>*.json`` of a COCO-layout folder.

    Args:
        source: folder with ``annotations/`` and either ``images/`` or one named by what follows ``captions_``, such as
            ``train2017/``.
        splits: names of the splits to read, such as ``train``; all if empty.
        skip_bad: whether faulty annotations are set aside; otherwise they are errors.

    Raises:
        FileNotFoundError: the folder, its annotations or a split is missing.
        ValueError: an annotation file is damaged, an annotation is faulty and ``skip_bad`` is off, or a split has no
            usable image.
    """
    found: dict[str, tuple[CaptionedImage, ...]] = {}
    set_aside: list[SetAside] = []
    files = _annotation_files(source, splits)
    for split, file in files.items():
        content = _read_json(file, ("images", "annotations"), form="a COCO captions file")
        rows = _coco_rows(content, set_aside)
        folders = [source / "images", source / file.stem.removeprefix("captions_")]
        usable = _usable(rows, folders, set_aside)
        found[split] = _accept(usable, str(file), set_aside, skip_bad=skip_bad)
    digests = {file.name: sha256_of(file) for file in files.values()}
    return Annotations(splits=found, set_aside=tuple(set_aside), files=digests)


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
    _require_folder(source)
    set_aside: list[SetAside] = []
    rows = _karpathy_rows(_read_json(file, ("images",), form="a Karpathy split file"), set_aside)
    if not rows:
        _accept((), str(file), set_aside, skip_bad=skip_bad)
    _require_splits(file, rows, splits)
    found: dict[str, tuple[CaptionedImage, ...]] = {}
    for split in sorted(set(splits) or rows):
        usable = _usable(rows[split], [source, source / "images"], set_aside)
        found[split] = _accept(usable, f"{file}, split {split}", set_aside, skip_bad=skip_bad)
    return Annotations(splits=found, set_aside=tuple(set_aside), files={file.name: sha256_of(file)})


def _annotation_files(source: Path, splits: Sequence[str]) -> dict[str, Path]:
    _require_folder(source)
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
    _require_splits(source, files, splits)
    return {split: path for split, path in files.items() if not splits or split in splits}


def _require_folder(source: Path) -> None:
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder; give the folder that holds the images and annotations")


def _require_splits(source: Path, present: Iterable[str], splits: Sequence[str]) -> None:
    missing = [split for split in splits if split not in present]
    if missing:
        raise FileNotFoundError(f"{source} has no split {', '.join(missing)}; choose from {', '.join(sorted(present))}")


def _read_json(path: Path, required: Sequence[str], *, form: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of {form}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch it again") from None
    missing = [name for name in required if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if missing:
        raise ValueError(f"{path} has no list {' and no list '.join(missing)}; use {form}")
    return content


def _coco_rows(content: dict[str, Any], set_aside: list[SetAside]) -> list[_Row]:
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
        "images": _unrepeated([image for _, image in images], set_aside),
        # createIndex needs an id for each annotation; the file's own ids are not used and may be missing.
        "annotations": [{**annotation, "id": index} for index, annotation in annotations],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco.createIndex()
    return [
        _Row(image_id, (image["file_name"],), [row["caption"] for row in coco.imgToAnns.get(image_id, [])])
        for image_id, image in sorted(coco.imgs.items())
    ]


def _karpathy_rows(content: dict[str, Any], set_aside: list[SetAside]) -> dict[str, list[_Row]]:
    """Return the images of a Karpathy split file by split, sorted by image id."""
    form = {"filename": str, "split": str, "sentences": list}
    images = []
    for index, image in well_formed(content, "images", form, set_aside):
        identity = "cocoid" if "cocoid" in image else "imgid"
        sentences = image["sentences"]
        faults = [fault_of({"filepath": "", **image}, {identity: int, "filepath": str})]
        faults += [fault_of(sentence, {"raw": str}) for sentence in sentences]
        fault = next(filter(None, faults), "")
        if fault:
            set_aside.append(SetAside(key=f"images[{index}]", reason=f"images[{index}] {fault}"))
        else:
            images.append({**image, "id": image[identity], "file_name": image["filename"]})
    rows: dict[str, list[_Row]] = {}
    for image in sorted(_unrepeated(images, set_aside), key=lambda image: image["id"]):
        split = "train" if image["split"] == "restval" else image["split"]
        names = [str(Path(image.get("filepath", "")) / image["filename"]), image["filename"]]
        if "cocoid" in image:  # COCO 2017 has the photographs of COCO 2014, named by their ids
            names += [f"{folder}/{key_of(image['id'])}.jpg" for folder in ("train2017", "val2017")]
        rows.setdefault(split, []).append(_Row(image["id"], tuple(names), [one["raw"] for one in image["sentences"]]))
    return rows


def _unrepeated(images: Sequence[dict[str, Any]], set_aside: list[SetAside]) -> list[dict[str, Any]]:
    """Drop all images that share an id, because captions refer to images by id."""
    counts = Counter(image["id"] for image in images)
    names: dict[int, list[str]] = {}
    for image in images:
        if counts[image["id"]] > 1:
            names.setdefault(image["id"], []).append(image["file_name"])
    for image_id, repeated in names.items():
        reason = f"image id {image_id} is used by {len(repeated)} images: {', '.join(repeated[:3])}"
        set_aside.append(SetAside(key=key_of(image_id), reason=reason))
    return [image for image in images if image["id"] not in names]


def _usable(rows: Iterable[_Row], folders: Sequence[Path], set_aside: list[SetAside]) -> tuple[CaptionedImage, ...]:
    """Return the images that exist and have a usable caption; add the others, and other captions, to ``set_aside``."""
    images, files = [], ImageFiles(folders)
    for image_id, names, captions in rows:
        written = [" ".join(caption.split()) for caption in captions]
        usable = tuple(caption for caption in written if 0 < len(caption) <= _LONGEST_CAPTION)
        path = files.find(names)
        reasons = []
        if not all(written):
            reasons.append(f"a caption of image {image_id} ({names[0]}) is empty or only spaces")
        if (longest := max(map(len, written), default=0)) > _LONGEST_CAPTION:
            fault = f"has {longest} characters, more than {_LONGEST_CAPTION}"
            reasons.append(f"a caption of image {image_id} ({names[0]}) {fault}")
        if outside := [name for name in names if not is_inside(name)]:
            reasons.append(f"image {image_id} ({names[0]}) {why_outside(outside[0])}")
        elif path is None:
            reasons.append(f"image {image_id} ({names[0]}) {files.why_not_found(names[0])}")
        elif not usable:
            reasons.append(f"image {image_id} ({names[0]}) has no caption")
        else:
            images.append(CaptionedImage(image_id=image_id, path=path, captions=usable))
        set_aside.extend(SetAside(key=key_of(image_id), reason=reason) for reason in reasons)
    return tuple(images)


def _accept(
    images: tuple[CaptionedImage, ...], where: str, set_aside: Sequence[SetAside], *, skip_bad: bool
) -> tuple[CaptionedImage, ...]:
    """Return the images of a split.

    Raises:
        ValueError: there are faults and ``skip_bad`` is off, or no image is usable.
    """
    more = f" (and {len(set_aside) - 1} more)" if len(set_aside) > 1 else ""
    if set_aside and not skip_bad:
        raise ValueError(f"{where}: {set_aside[0].reason}{more}; fix the source, or set them aside with --on-bad skip")
    if not images:
        fault = f" ({set_aside[-1].reason})" if set_aside else ""
        raise ValueError(f"{where} has no usable image{fault}; give a file with at least one")
    return images
