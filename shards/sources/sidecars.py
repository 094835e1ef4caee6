"""Reader of pictures with their captions beside them: ``dog.jpg`` and ``dog.txt``, a caption a line."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from shards.samples import SetAside
from shards.sources.annotations import SURROGATE, Annotations
from shards.sources.records import read_text
from shards.sources.rows import Row, annotations_of
from shards.sources.splits import is_split, usual_split

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


def has_sidecars(source: Path) -> bool:
    """Return whether a folder holds a picture with a text file of its name beside it."""
    return any(_text_beside(path).is_file() for path in _pictures(source))


def read_sidecars(source: Path, splits: Sequence[str] = (), *, skip_bad: bool = False) -> Annotations:
    """Read the pictures below a folder; the path of a picture below the folder is its id.

    Pictures in folders named by splits, such as ``train/`` and ``val/``, belong to these.

    Args:
        source: folder to search, with all folders in it but hidden ones.
        splits: names of the splits to read; all if empty.
        skip_bad: whether pictures without captions are set aside; otherwise they are errors.

    Raises:
        FileNotFoundError: a split is missing.
        ValueError: a picture has no captions and ``skip_bad`` is off, or a split has no usable picture.
    """
    names = [path.relative_to(source) for path in _pictures(source)]
    has_splits = all(len(name.parts) > 1 and is_split(name.parts[0]) for name in names)
    set_aside: list[SetAside] = []
    rows: dict[str, list[Row]] = {}
    for name in sorted(names, key=Path.as_posix):
        if SURROGATE.search(str(name)):  # as Python reads a name that is not UTF-8
            key = ascii(name.as_posix())
            set_aside.append(SetAside(key=key, reason=f"{key} has a name that is not UTF-8; rename it"))
            continue
        text = _text_beside(source / name)
        try:
            captions = [line for line in read_text(text).split("\n") if line.strip()] if text.is_file() else []
        except ValueError as error:
            set_aside.append(SetAside(key=name.as_posix(), reason=str(error)))
            continue
        if not captions:
            fault = "has no caption" if text.is_file() else "is missing"
            set_aside.append(SetAside(key=name.as_posix(), reason=f"{name.as_posix()}: {text.name} {fault}"))
            continue
        split = usual_split(name.parts[0]) if has_splits else ""
        rows.setdefault(split, []).append(Row(name.as_posix(), (name.as_posix(),), captions))
    return annotations_of(
        rows, [source], where=str(source), files=(), splits=splits, set_aside=set_aside, skip_bad=skip_bad
    )


def _text_beside(picture: Path) -> Path:
    texts = [picture.with_suffix(suffix) for suffix in (".txt", ".TXT")]
    return next((text for text in texts if text.is_file()), texts[0])


def _pictures(source: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES:
                yield Path(folder, name)
