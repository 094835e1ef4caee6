"""Reader of Flickr8k's and Flickr30k's own files: a token file, and a list of images for each split.

Sources: Hodosh, Young and Hockenmaier, 2013, Framing Image Description as a Ranking Task; Young et al., 2014, From
Image Descriptions to Visual Denotations.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from shards.samples import SetAside
from shards.sources.annotations import Annotations
from shards.sources.records import read_text
from shards.sources.rows import Row, annotations_of, image_folders
from shards.sources.splits import usual_split

_TOKEN_FILES = ("*.token", "*.token.txt")
_TOKEN_LINE = re.compile(r"(.+)#\d+\t(.*)")
_LIST_NAME = re.compile(r"(?:.*[._])?(train|dev|val|test)(?:_?images)?\.txt", re.IGNORECASE)


def find_token_file(source: Path) -> Path | None:
    """Return the token file in a folder or in the folders in it, such as ``Flickr8k.token.txt``; None without one."""
    found = [path for folder in ("", "*/") for form in _TOKEN_FILES for path in source.glob(folder + form)]
    # Beside the captions Flickr8k has them in lemmas, and as experts and a crowd rated them.
    captions = [path for path in found if "lemma" not in path.name]
    return min(captions, default=None)


def read_flickr(source: Path, file: Path, splits: Sequence[str] = (), *, skip_bad: bool = False) -> Annotations:
    """Read a token file and the lists of images beside it.

    Args:
        source: folder that holds the images, or has them in a folder such as ``Flicker8k_Dataset/``.
        file: token file: a line is the image's name, ``#`` and a number, a tab, and a caption.
        splits: names of the splits to read; all if empty.
        skip_bad: whether faulty lines are set aside; otherwise they are errors.

    Raises:
        FileNotFoundError: a split is missing.
        ValueError: a line or an image is faulty and ``skip_bad`` is off, or a split has no usable image.
    """
    set_aside: list[SetAside] = []
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if match := _TOKEN_LINE.fullmatch(line):
            captions.setdefault(match[1], []).append(match[2])
        elif line.strip():
            fault = f"line {number} is not an image's name, # and a number, a tab, and a caption"
            set_aside.append(SetAside(key=f"{file.name}, line {number}", reason=fault))
    lists = _lists(source, file)
    rows: dict[str, list[Row]] = {}
    for split, names in (_named(lists) if lists else {"": sorted(captions)}).items():
        rows[split] = [Row(name, (name,), captions.get(name, [])) for name in names]
    return annotations_of(
        rows,
        [*image_folders(source), *image_folders(file.parent)],
        where=str(file),
        files=[file, *lists],
        splits=splits,
        set_aside=set_aside,
        skip_bad=skip_bad,
    )


def _lists(source: Path, file: Path) -> list[Path]:
    folders = sorted({source, file.parent})
    return [path for folder in folders for path in sorted(folder.glob("*.txt")) if _LIST_NAME.fullmatch(path.name)]


def _named(lists: Sequence[Path]) -> dict[str, list[str]]:
    """Return the names of the images of each split."""
    names: dict[str, list[str]] = {}
    for path in lists:
        match = _LIST_NAME.fullmatch(path.name)
        assert match
        lines = (line.strip() for line in read_text(path).split("\n"))
        names.setdefault(usual_split(match[1]), []).extend(dict.fromkeys(filter(None, lines)))
    return names
