"""Reader of tables of captions: CSV, TSV, JSON Lines, Parquet or a saved dataset, a row a caption or a row an image.

It also reads what others call an imagefolder (a ``metadata`` table in the folder of each split; Hugging Face Datasets),
Flickr30k's ``results.csv`` and Kaggle's ``captions.txt`` of Flickr8k.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shards.file_part import FilePart
from shards.samples import ImageId, SetAside
from shards.sources.annotations import Annotations
from shards.sources.records import SUFFIXES, Record, Table, captions_of, open_table, plain, shown
from shards.sources.rows import Row, annotations_of, image_folders
from shards.sources.saved_datasets import STATE_NAME, open_saved
from shards.sources.splits import is_split, usual_split

_IMAGE_COLUMNS = ("file_name", "filename", "image", "image_name", "image_path", "filepath", "path", "file", "img")
_CAPTION_COLUMNS = ("caption", "captions", "text", "texts", "raw", "comment", "sentence", "sentences", "description")
_ID_COLUMNS = ("image_id", "img_id", "imgid", "cocoid")
_SPLIT_COLUMNS = ("split",)
_NUMBERED_CAPTION = re.compile(r"(?:caption|comment|sentence|text)[ _-]?\d+")
_STEMS = ("captions", "metadata", "results")
_NUMBER = re.compile(r"0|[1-9]\d*")


class TableFile(NamedTuple):
    """A table of a source, a file or the folder of a saved dataset.

    ``split`` is its split, or empty if its rows tell theirs, or have none.
    """

    path: Path
    split: str = ""


class Columns(NamedTuple):
    """The columns of a table that have a meaning; None where there is none."""

    image: str
    captions: tuple[str, ...]
    image_id: str | None
    split: str | None


def find_tables(source: Path) -> list[TableFile]:
    """Return the tables of a folder: ``captions`` or ``metadata``, in it or in the folder of each split.

    Raises:
        ValueError: a folder has two tables of one split.
    """
    found: dict[tuple[Path, str], Path] = {}
    folders = [(source, ""), *((path, usual_split(path.name)) for path in _split_folders(source))]
    for folder, split in folders:
        for path in sorted(folder.iterdir()):
            stem, _, own = path.stem.lower().partition("_")
            is_table = path.suffix.lower() in SUFFIXES or path.name.lower() == "captions.txt"
            if stem not in _STEMS or not is_table or not path.is_file():
                continue
            place = (folder, usual_split(own) if own else split)
            if place in found:
                raise ValueError(
                    f"{found[place]} and {path.name} both have captions; name the one to use: --annotations SPLIT=FILE"
                )
            found[place] = path
    return [TableFile(path, split) for (_, split), path in found.items()]


def read_tables(
    source: Path,
    tables: Sequence[TableFile],
    splits: Sequence[str] = (),
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    skip_bad: bool = False,
) -> Annotations:
    """Read the images of tables; rows of one image are joined, columns without a meaning are kept.

    Args:
        source: folder that holds the images, or has them in a folder such as ``images/``.
        tables: tables to read.
        splits: names of the splits to read; all if empty.
        image_column: column of the image's file; by default found by its name.
        caption_column: column of the caption or the list of captions; by default found by its name.
        skip_bad: whether faulty rows are set aside; otherwise they are errors.

    Raises:
        FileNotFoundError: a table or a split is missing.
        ValueError: a table is damaged or lacks a column, a row is faulty and ``skip_bad`` is off, or a split has no
            usable image.
    """
    set_aside: list[SetAside] = []
    rows: dict[str, list[Row]] = {}
    for path, split in tables:
        table, image_columns = _open(path)
        columns = _columns(path, table.columns, image_columns, image_column, caption_column)
        found = _Images(columns, _below(_folder_of(path), source))
        for record in table.records:
            if fault := record.fault or found.add(record):
                set_aside.append(SetAside(key=f"{path.name}, {record.place}", reason=f"{record.place} {fault}"))
        for own, images in found.by_split(set_aside).items():
            rows.setdefault(split or own, []).extend(images)
    folders = [*image_folders(source), *(folder for path, _ in tables for folder in image_folders(_folder_of(path)))]
    where = ", ".join(str(path) for path, _ in tables)
    files = [path / STATE_NAME if path.is_dir() else path for path, _ in tables]
    return annotations_of(
        rows, folders, where=where, files=files, splits=splits, set_aside=set_aside, skip_bad=skip_bad
    )


def _open(path: Path) -> tuple[Table, Sequence[str]]:
    """Open a table or a saved dataset; return it, and its columns that hold images, not names of files."""
    if not path.is_dir():
        return open_table(path), ()
    saved = open_saved(path)
    return Table(saved.columns, saved.records()), saved.image_columns


def _folder_of(table: Path) -> Path:
    return table if table.is_dir() else table.parent


def _below(folder: Path, source: Path) -> Path | None:
    return folder.relative_to(source) if source in folder.parents else None


def _split_folders(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_dir() and is_split(path.name))


def _columns(
    path: Path, names: Sequence[str], images: Sequence[str], image: str | None, caption: str | None
) -> Columns:
    by_name = {name.lower(): name for name in names}

    def find(wanted: str | None, usual: Sequence[str]) -> str | None:
        if wanted is None:
            return next((by_name[name] for name in usual if name in by_name), None)
        if wanted not in names:
            raise ValueError(f"{path} has no column {wanted}; it has {', '.join(names)}")
        return wanted

    image = images[0] if image is None and len(images) == 1 else find(image, _IMAGE_COLUMNS)
    one = find(caption, _CAPTION_COLUMNS)
    captions = (one,) if one else tuple(name for name in names if _NUMBERED_CAPTION.fullmatch(name.lower()))
    for what, found, flag in (("image's file", image, "--image-column"), ("caption", captions, "--caption-column")):
        if not found:
            raise ValueError(
                f"{path} has no column whose name says that it is the {what}; name it with {flag}: {', '.join(names)}"
            )
    assert image
    return Columns(image, captions, find(None, _ID_COLUMNS), find(None, _SPLIT_COLUMNS))


class _Images:
    """The images of a table, by file: rows of one file are joined.

    Args:
        columns: columns with a meaning.
        folder: folder of the table below the source, in which names are looked up first; None if it is no other.
    """

    def __init__(self, columns: Columns, folder: Path | None) -> None:
        self._columns, self._folder = columns, folder
        self._captions: dict[str, list[str]] = {}
        self._first: dict[str, Record] = {}
        self._others: dict[str, dict[str, Any]] = {}

    def add(self, record: Record) -> str:
        """Add a row; return what is wrong with it, empty if nothing is."""
        values, columns = record.values, self._columns
        image = values.get(columns.image)
        name = image.name if isinstance(image, FilePart) else image
        if not isinstance(name, str) or not name:
            return _why_no_name(name, columns.image)
        first = self._first.get(name)
        if first and not _are_equal(first.values[columns.image], image):
            return f"has another image {name} than {first.place}; remove one, or save them under different names"
        if columns.image_id and isinstance(values.get(columns.image_id), bool | float | list | dict):
            found = shown(values[columns.image_id])
            return f"has {columns.image_id} {found}, which is neither a whole number nor a text"
        if columns.split and not values.get(columns.split):
            return f"has no {columns.split}"
        captions: list[str] = []
        for column in columns.captions:
            found = captions_of(values.get(column))
            if found is None:
                return f"has {column} {shown(values.get(column))}, which is no caption"
            captions += found
        meant = {columns.image, columns.image_id, columns.split, *columns.captions}
        others = {key: plain(value) for key, value in values.items() if key not in meant and value not in (None, "")}
        if name not in self._first:
            self._first[name], self._captions[name], self._others[name] = record, captions, others
            return ""
        for key in (columns.image_id, columns.split):
            if key and values.get(key) != self._first[name].values.get(key):
                first = self._first[name]
                return f"has {key} {shown(values.get(key))} for {name}, {first.place} {shown(first.values.get(key))}"
        self._captions[name] += captions
        kept = self._others[name]
        self._others[name] = {key: value for key, value in kept.items() if key in others and others[key] == value}
        return ""

    def by_split(self, set_aside: list[SetAside]) -> dict[str, list[Row]]:
        """Return the images by split, sorted by id; images that share an id are set aside."""
        ids = self._ids()
        names: dict[ImageId, list[str]] = {}
        for name, image_id in ids.items():
            names.setdefault(image_id, []).append(name)
        rows: dict[str, list[Row]] = {}
        for image_id, (name, *more) in sorted(names.items()):
            if more:
                reason = f"image id {image_id} is used by {1 + len(more)} images: {', '.join([name, *more][:3])}"
                set_aside.append(SetAside(key=str(image_id), reason=reason))
                continue
            split = str(self._first[name].values[self._columns.split]) if self._columns.split else ""
            places = (str(self._folder / name), name) if self._folder else (name,)
            image = self._first[name].values[self._columns.image]
            part = image if isinstance(image, FilePart) else None
            row = Row(image_id, places, self._captions[name], self._others[name], part)
            rows.setdefault(usual_split(split), []).append(row)
        return rows

    def _ids(self) -> dict[str, ImageId]:
        """Return the id of each image: its own, as a number if all are, or its file's name."""
        column = self._columns.image_id
        given = {name: record.values.get(column) if column else None for name, record in self._first.items()}
        if any(value in (None, "") for value in given.values()):
            return {name: name for name in given}
        if all(_NUMBER.fullmatch(str(value)) for value in given.values()):
            return {name: int(str(value)) for name, value in given.items()}
        return {name: str(value) for name, value in given.items()}


def _why_no_name(value: object, column: str) -> str:
    if isinstance(value, dict) and "bytes" in value:
        return f"has the image itself in {column}; load the table by datasets, and give what save_to_disk writes"
    return f"has {column} {shown(value)}, which is not the name of a file"


def _are_equal(image: object, other: object) -> bool:
    """Return whether two images of a dataset that have one name are of equal bytes."""
    if not isinstance(image, FilePart) or not isinstance(other, FilePart):
        return image == other
    return image.num_bytes == other.num_bytes and image.read_bytes() == other.read_bytes()
