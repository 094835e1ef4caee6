"""Images as a source lists them -> the usable ones; checks that all readers of sources share."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shards.file_part import FilePart
from shards.samples import LONGEST_CAPTION, CaptionedImage, ImageId, SetAside, key_of
from shards.sources.annotations import Annotations
from shards.sources.image_files import ImageFiles, is_inside, why_outside
from shards.storage.files import sha256_of

# Where the sources of this field keep their images, below the folder that is given.
_IMAGE_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")


class Row(NamedTuple):
    """One image of a source.

    ``names`` are the file names that it may have, ``columns`` its further values, ``part`` is where its bytes are if it
    is no file of its own.
    """

    image_id: ImageId
    names: tuple[str, ...]
    captions: Sequence[str]
    columns: dict[str, Any] = {}  # noqa: RUF012
    part: FilePart | None = None


def require_folder(source: Path) -> None:
    """Raise FileNotFoundError unless the source is a folder."""
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder; give the folder that holds the images and annotations")


def require_splits(source: Path, present: Iterable[str], splits: Sequence[str]) -> None:
    """Raise FileNotFoundError if a wanted split is not among those that are present."""
    missing = [split for split in splits if split not in present]
    if missing:
        raise FileNotFoundError(f"{source} has no split {', '.join(missing)}; choose from {', '.join(sorted(present))}")


def unrepeated(images: Sequence[dict[str, Any]], set_aside: list[SetAside]) -> list[dict[str, Any]]:
    """Drop all images that share an id, because captions refer to images by id; an equal entry counts once."""
    images = _once(images)
    counts = Counter(image["id"] for image in images)
    names: dict[ImageId, list[str]] = {}
    for image in images:
        if counts[image["id"]] > 1:
            names.setdefault(image["id"], []).append(image["file_name"])
    for image_id, repeated in names.items():
        reason = f"image id {image_id} is used by {len(repeated)} images: {', '.join(repeated[:3])}"
        set_aside.append(SetAside(key=key_of(image_id), reason=reason))
    return [image for image in images if image["id"] not in names]


def _once(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the images without those that an earlier entry equals, word for word."""
    first: dict[ImageId, dict[str, Any]] = {}
    return [image for image in images if first.setdefault(image["id"], image) is image or first[image["id"]] != image]


def usable(rows: Iterable[Row], folders: Sequence[Path], set_aside: list[SetAside]) -> tuple[CaptionedImage, ...]:
    """Return the images that exist and have a usable caption; add the others, and other captions, to ``set_aside``."""
    images, files = [], ImageFiles(folders)
    for image_id, names, captions, columns, part in rows:
        written = [" ".join(caption.split()) for caption in captions]
        usable = tuple(caption for caption in written if 0 < len(caption) <= LONGEST_CAPTION)
        path = part or files.find(names)
        reasons = []
        if not all(written):
            reasons.append(f"a caption of image {image_id} ({names[0]}) is empty or only spaces")
        if (longest := max(map(len, written), default=0)) > LONGEST_CAPTION:
            fault = f"has {longest} characters, more than {LONGEST_CAPTION}"
            reasons.append(f"a caption of image {image_id} ({names[0]}) {fault}")
        if outside := [name for name in names if part is None and not is_inside(name)]:
            reasons.append(f"image {image_id} ({names[0]}) {why_outside(outside[0])}")
        elif path is None:
            reasons.append(f"image {image_id} ({names[0]}) {files.why_not_found(names[0])}")
        elif not usable:
            reasons.append(f"image {image_id} ({names[0]}) has no caption")
        else:
            images.append(CaptionedImage(image_id=image_id, path=path, captions=usable, columns=columns))
        set_aside.extend(SetAside(key=key_of(image_id), reason=reason) for reason in reasons)
    return tuple(images)


def accept(
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


def image_folders(source: Path) -> list[Path]:
    """Return the folders that may hold a source's images: its own, and those in it with a usual name."""
    return [source, *(path for name in _IMAGE_FOLDERS if (path := source / name).is_dir())]


def annotations_of(
    rows: Mapping[str, Iterable[Row]],
    folders: Sequence[Path],
    *,
    where: str,
    files: Sequence[Path],
    splits: Sequence[str],
    set_aside: list[SetAside],
    skip_bad: bool,
) -> Annotations:
    """Return the usable images of a source by split.

    Args:
        rows: images by split; those of the split ``""`` are of none, and become ``train``.
        folders: folders to search for the images.
        where: name of the source, for messages.
        files: files of the annotations, for their checksums.
        splits: names of the splits to return; all if empty.
        set_aside: faults so far.
        skip_bad: whether faults are set aside; otherwise they are errors.

    Raises:
        FileNotFoundError: a split is missing.
        ValueError: there are faults and ``skip_bad`` is off, or a split has no usable image.
    """
    named = {split or "train": found for split, found in rows.items()}
    if not named:
        accept((), where, set_aside, skip_bad=skip_bad)
    require_splits(Path(where), named, splits)
    found = {
        split: accept(usable(named[split], folders, set_aside), f"{where}, split {split}", set_aside, skip_bad=skip_bad)
        for split in sorted(set(splits) or named)
    }
    return Annotations(
        splits=found,
        set_aside=tuple(set_aside),
        files={name: sha256_of(file) for name, file in _by_name(files).items()},
        has_splits="" not in rows,
    )


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    """Return the files by their names, with their folders' names where they share one."""
    counts = Counter(file.name for file in files)
    return {file.name if counts[file.name] == 1 else f"{file.parent.name}/{file.name}": file for file in files}
