"""Caption annotations: COCO JSON or a Karpathy split file -> captioned images, checked first.

Sources: Chen et al., 2015, Microsoft COCO Captions (https://arxiv.org/abs/1504.00325); the split of Karpathy and Li,
2015, Deep Visual-Semantic Alignments (https://arxiv.org/abs/1412.2306), whose ``restval`` counts as training.
"""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedImage:
    """An image file and what people wrote about it."""

    image_id: int
    path: Path
    captions: tuple[str, ...]

    @property
    def key(self) -> str:
        """Return the key in a shard: COCO's twelve digits."""
        return f"{self.image_id:012d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """An annotation or image that is not stored, and why."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """The usable images of a source by split, and what was set aside."""

    splits: dict[str, tuple[CaptionedImage, ...]]
    set_aside: tuple[SetAside, ...] = ()


def read_coco(source: Path, splits: Sequence[str] = (), *, skip_bad: bool = False) -> Annotations:
    """Read every ``annotations/captions_<split>*.json`` of a COCO-layout folder.

    Args:
        source: holds ``annotations/`` and ``images/`` or ``<split>2017/`` (whatever follows ``captions_``).
        splits: the wanted ones, such as ``train``; all that are there if empty.
        skip_bad: set faulty annotations aside instead of refusing the source.

    Raises:
        FileNotFoundError: the folder, its annotations or a wanted split is missing.
        ValueError: an annotation file is damaged, or an annotation is faulty and ``skip_bad`` is off.
    """
    files = _annotation_files(source, splits)
    found: dict[str, tuple[CaptionedImage, ...]] = {}
    set_aside: list[SetAside] = []
    for split, file in files.items():
        folders = [source / "images", source / file.stem.removeprefix("captions_")]
        rows = _coco_rows(file, set_aside)
        found[split] = _usable(rows, folders, file, set_aside)
        _refuse_faults(file, set_aside, skip_bad=skip_bad)
    return Annotations(splits=found, set_aside=tuple(set_aside))


def read_karpathy(source: Path, file: Path, *, skip_bad: bool = False) -> Annotations:
    """Read the splits of a Karpathy split file (``dataset_coco.json``, ``dataset_flickr8k.json``, ...).

    Args:
        source: folder of the images, by the file's ``filepath``, in ``images/``, or directly.
        file: the split file.
        skip_bad: set faulty annotations aside instead of refusing the file.

    Raises:
        FileNotFoundError: the folder or the file is missing.
        ValueError: the file is damaged, or an image is faulty and ``skip_bad`` is off.
    """
    _require_folder(source)
    rows: dict[str, list[tuple[int, str, list[str]]]] = {}
    for image in _read_json(file, ("images",))["images"]:
        try:
            split = "train" if image["split"] == "restval" else image["split"]
            name = str(Path(image.get("filepath", "")) / image["filename"])
            captions = [sentence["raw"] for sentence in image["sentences"]]
            rows.setdefault(split, []).append((int(image.get("cocoid", image.get("imgid"))), name, captions))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: an image lacks or garbles {error}; use a Karpathy split file") from None
    set_aside: list[SetAside] = []
    folders = [source, source / "images"]
    splits = {split: _usable(found, folders, file, set_aside) for split, found in sorted(rows.items())}
    _refuse_faults(file, set_aside, skip_bad=skip_bad)
    return Annotations(splits=splits, set_aside=tuple(set_aside))


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
        split = path.stem.removeprefix("captions_").rstrip("0123456789")
        if split in files:
            raise ValueError(f"{path} and {files[split].name} are both split {split}; keep one year a folder")
        files[split] = path
    missing = [split for split in splits if split not in files]
    if missing:
        raise FileNotFoundError(f"{source} has no split {', '.join(missing)}; it has {', '.join(files)}")
    return {split: path for split, path in files.items() if not splits or split in splits}


def _require_folder(source: Path) -> None:
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder; give the folder that holds the images and annotations")


def _read_json(path: Path, required: Iterable[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; check its name") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch it again") from None
    missing = [name for name in required if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if missing:
        raise ValueError(f"{path} has no list {' and no list '.join(missing)}; use a COCO captions file")
    return content


def _coco_rows(file: Path, set_aside: list[SetAside]) -> list[tuple[int, str, list[str]]]:
    """Return (image id, file name, captions) of a COCO captions file, by image id."""
    content = _read_json(file, ("images", "annotations"))
    try:
        known = Counter(image["id"] for image in content["images"])
        [annotation["image_id"] + len(annotation["caption"]) for annotation in content["annotations"]]
        [image["file_name"] + "" for image in content["images"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: an entry lacks or garbles {error}; use a COCO captions file") from None
    repeated = [image_id for image_id, count in known.items() if count > 1]
    if repeated:
        raise ValueError(f"{file}: image id {repeated[0]} stands for {known[repeated[0]]} images; ids must differ")
    for annotation in content["annotations"]:
        if annotation["image_id"] not in known:
            reason = f"annotation {annotation.get('id')} is of image {annotation['image_id']}, which images[] lacks"
            set_aside.append(SetAside(key=f"{annotation['image_id']:012d}", reason=reason))
    coco: Any = COCO()  # its type leaves out what createIndex makes
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return [
        (image_id, coco.imgs[image_id]["file_name"], [row["caption"] for row in coco.imgToAnns.get(image_id, [])])
        for image_id in sorted(coco.imgs)
    ]


def _usable(
    rows: Iterable[tuple[int, str, list[str]]], folders: Sequence[Path], file: Path, set_aside: list[SetAside]
) -> tuple[CaptionedImage, ...]:
    """Keep the images that exist and have a caption; note the others, and empty captions, in ``set_aside``."""
    images = []
    for image_id, name, captions in rows:
        written = [" ".join(caption.split()) for caption in captions]
        path = _find(folders, name)
        reasons = []
        if not all(written):
            reasons.append(f"a caption of image {image_id} ({name}) is empty or only spaces")
        if path is None:
            reasons.append(f"image {image_id} ({name}) is in none of {', '.join(str(folder) for folder in folders)}")
        elif not any(written):
            reasons.append(f"image {image_id} ({name}) has no caption")
        else:
            images.append(CaptionedImage(image_id=image_id, path=path, captions=tuple(filter(None, written))))
        set_aside.extend(SetAside(key=f"{image_id:012d}", reason=reason) for reason in reasons)
    if not images and not set_aside:
        raise ValueError(f"{file} lists no image; give a file with at least one")
    return tuple(images)


def _find(folders: Sequence[Path], name: str) -> Path | None:
    """Return the image file, unless its name points out of the folders."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _refuse_faults(file: Path, set_aside: Sequence[SetAside], *, skip_bad: bool) -> None:
    if set_aside and not skip_bad:
        more = f" (and {len(set_aside) - 1} more faults)" if len(set_aside) > 1 else ""
        raise ValueError(f"{file}: {set_aside[0].reason}{more}; mend the source, or set them aside with --on-bad skip")
