"""Recognition of a source: which of the known forms a folder has, and the reader for it."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar, get_args

from shards.sources.annotations import Annotations
from shards.sources.coco import read_coco
from shards.sources.flickr import find_token_file, read_flickr
from shards.sources.karpathy import find_split_file, read_karpathy, split_files
from shards.sources.rows import require_folder
from shards.sources.saved_datasets import find_saved, is_saved
from shards.sources.sidecars import has_sidecars, read_sidecars
from shards.sources.splits import deal, parse_ratio, usual_split
from shards.sources.tables import TableFile, find_tables, read_tables
from shards.storage.files import require_listable

Form = Literal["coco", "karpathy", "flickr", "table", "datasets", "sidecars"]
T = TypeVar("T")
FORMS: tuple[Form, ...] = get_args(Form)
PUBLISHED: tuple[Form, ...] = ("coco", "karpathy", "flickr")
"""Forms of published datasets, whose splits are those of everybody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """How to read a source, where it does not tell."""

    form: Form | None = None
    """Form of the source; None recognizes it by what is there."""
    karpathy: Path | None = None
    """Karpathy split file, which makes the form ``karpathy``."""
    annotations: tuple[str, ...] = ()
    """Files of captions, each as ``SPLIT=FILE``; they are used instead of what the folder holds."""
    image_column: str | None = None
    caption_column: str | None = None
    split_by: str | None = None
    """Ratio of train, val and test, for a source without splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A source that was read: its images, and what it was recognized as."""

    form: Form
    annotations: Annotations


@contextmanager
def _without_collecting_cycles() -> Iterator[None]:
    """Pause the search for cycles, which looks at all images again and again: a third of the time of a million."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_without_collecting_cycles()
def read_source(folder: Path, options: SourceOptions, splits: Sequence[str] = (), *, skip_bad: bool = False) -> Source:
    """Read the captioned images of a folder in one of the known forms.

    Args:
        folder: folder of the images, and of their captions unless the options name these.
        options: what the folder does not tell.
        splits: names of the splits to read; all if empty.
        skip_bad: whether faulty images and captions are set aside; otherwise they are errors.

    Raises:
        FileNotFoundError: the folder, a file or a split is missing.
        ValueError: the form is not recognized or ambiguous, an option does not fit it, or the source is faulty.
    """
    require_folder(folder)
    shares = parse_ratio(options.split_by) if options.split_by else None
    form, read = _reader(folder, options)
    if shares is None:
        return Source(form=form, annotations=read(splits, skip_bad))
    annotations = read((), skip_bad)
    if annotations.has_splits:
        found = ", ".join(annotations.splits)
        raise ValueError(f"{folder} has splits of its own ({found}); leave out --split-by {options.split_by}")
    dealt = deal(annotations.splits["train"], shares)
    wanted = {split: images for split, images in dealt.items() if not splits or split in splits}
    return Source(form=form, annotations=replace(annotations, splits=wanted))


_Read = Callable[[Sequence[str], bool], Annotations]


def _reader(folder: Path, options: SourceOptions) -> tuple[Form, _Read]:
    if options.annotations:
        return _reader_of_files(folder, options)
    form: Form = "karpathy" if options.karpathy else options.form or _recognize(folder)
    for flag, value in (("--image-column", options.image_column), ("--caption-column", options.caption_column)):
        if form not in ("table", "datasets") and value:
            raise ValueError(f"{folder} is read as {form}, which has no columns; leave out {flag} {value}")
    match form:
        case "coco":
            return form, lambda splits, skip_bad: read_coco(folder, splits, skip_bad=skip_bad)
        case "sidecars":
            return form, lambda splits, skip_bad: read_sidecars(folder, splits, skip_bad=skip_bad)
        case "karpathy":
            file = _present(options.karpathy or find_split_file(folder), folder, "one dataset_*.json: --karpathy FILE")
            return form, lambda splits, skip_bad: read_karpathy(folder, file, splits, skip_bad=skip_bad)
        case "flickr":
            file = _present(find_token_file(folder), folder, "*.token or *.token.txt, as Flickr8k and Flickr30k have")
            return form, lambda splits, skip_bad: read_flickr(folder, file, splits, skip_bad=skip_bad)
        case "table":
            wanted = "captions or metadata as .csv, .tsv, .jsonl or .parquet: --annotations SPLIT=FILE names another"
            return form, _table_reader(folder, _present(find_tables(folder), folder, wanted), options)
        case "datasets":
            saved = _present(find_saved(folder), folder, "dataset_dict.json or state.json of save_to_disk")
            return form, _table_reader(folder, [TableFile(path, split) for path, split in saved], options)


def _present(found: T | None, folder: Path, wanted: str) -> T:
    if not found:
        raise FileNotFoundError(f"{folder} has no {wanted}")
    return found


def _table_reader(folder: Path, tables: Sequence[TableFile], options: SourceOptions) -> _Read:
    return lambda splits, skip_bad: read_tables(
        folder,
        tables,
        splits,
        image_column=options.image_column,
        caption_column=options.caption_column,
        skip_bad=skip_bad,
    )


def _recognize(folder: Path) -> Form:
    """Return the form that a folder has.

    A file of Karpathy beside COCO's own is left alone, and so are text files beside pictures if anything else is there.
    """
    require_listable(folder)
    if (folder / "annotations").is_dir():
        require_listable(folder / "annotations")
    is_coco = any((folder / "annotations").glob("captions_*.json"))
    forms: dict[Form, object] = {
        "coco": is_coco,
        "karpathy": not is_coco and find_split_file(folder),
        "flickr": find_token_file(folder),
        "table": find_tables(folder),
        "datasets": is_saved(folder),
    }
    found: list[Form] = [form for form, is_there in forms.items() if is_there]
    if len(found) > 1:
        raise ValueError(f"{folder} can be read as {' and as '.join(found)}; choose one with --format")
    if found:
        return found[0]
    if len(several := split_files(folder)) > 1:
        names = " and ".join(path.name for path in several[:3])
        raise ValueError(f"{folder} holds {names}; choose one with --karpathy FILE")
    if has_sidecars(folder):
        return "sidecars"
    if any(folder.glob("*.tar")):
        raise FileNotFoundError(f"{folder} holds tars, which need no conversion; use captioning index {folder} SHARDS")
    raise FileNotFoundError(
        f"{folder} holds no captions: no annotations/captions_<split>.json (COCO), no dataset_*.json (Karpathy), no "
        "*.token (Flickr), no captions or metadata as .csv, .tsv, .jsonl or .parquet, no state.json (of Hugging Face's "
        "save_to_disk), and no .txt beside a picture; name a file of captions with --annotations SPLIT=FILE"
    )


def _reader_of_files(folder: Path, options: SourceOptions) -> tuple[Form, _Read]:
    """Return the reader of files that are named: all of them COCO's, or all tables."""
    files: dict[str, Path] = {}
    for text in options.annotations:
        split, equals, name = text.partition("=")
        if not (split and equals and name):
            raise ValueError(f"--annotations {text} is not SPLIT=FILE, such as train=captions.csv")
        if split in files:
            raise ValueError(f"--annotations names {split} twice: {files[split]} and {name}; keep one")
        path = Path(name)
        files[split] = path if path.is_file() or path.is_absolute() else folder / name
    are_json = {path.suffix == ".json" for path in files.values()}
    if len(are_json) > 1:
        raise ValueError("--annotations names COCO's .json beside tables; use files of one form")
    if are_json == {True}:
        return "coco", lambda splits, skip_bad: read_coco(folder, splits, skip_bad=skip_bad, files=files)
    tables = [TableFile(path, usual_split(split)) for split, path in files.items()]
    return "table", _table_reader(folder, tables, options)
