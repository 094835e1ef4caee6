"""Files of captions to score: results and references as COCO's JSON, JSON Lines, CSV, TSV or Parquet."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from captioning.evaluation.metrics import ImageId
from cluster.data.shard_set import ShardSet
from cluster.errors import Refusal, shorten
from shards.sources.records import open_table

_ID_COLUMNS = ("image_id", "id", "cocoid", "img_id", "imgid", "file_name", "filename", "image", "name")
_CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "raw", "comment")
_NUMBER = re.compile(r"0|[1-9]\d*")


def read_results(path: Path) -> dict[ImageId, str]:
    """Return the caption of each image of a results file.

    Args:
        path: list of ``{"image_id": ..., "caption": ...}`` as JSON, as the COCO evaluation takes it, or a table with
            columns ``image_id`` and ``caption``.

    Raises:
        FileNotFoundError: there is no such file.
        Refusal: it has another form, no caption, or two of one image.
    """
    captions: dict[ImageId, str] = {}
    for image_id, found in _pairs(path, lambda content: content if isinstance(content, list) else None):
        if image_id in captions or len(found) != 1:
            raise Refusal(
                f"{path} has {max(2, len(found))} captions of image {image_id}", "give one a picture, the best"
            )
        captions[image_id] = found[0]
    return _present(captions, path)


def read_references(location: Path, split: str) -> dict[ImageId, list[str]]:
    """Return the references of each image.

    Args:
        location: captions file of COCO, a table with columns ``image_id`` and ``caption``, a row a caption or a list of
            them, or the folder of a shard set.
        split: split of the shard set.

    Raises:
        FileNotFoundError: there is nothing there.
        Refusal: it has another form, or no reference.
        ValueError: the shard set is damaged, or has no such split.
    """
    references: dict[ImageId, list[str]] = {}
    if location.is_dir():
        reader = ShardSet(location).reader(split)
        samples = (reader.read(number) for number in range(len(reader)))
        return {sample.image_id: list(sample.captions) for sample in samples}
    for image_id, found in _pairs(location, _annotations):
        references.setdefault(image_id, []).extend(found)
    return _present(references, location)


def _annotations(content: object) -> list[Any] | None:
    found = content.get("annotations") if isinstance(content, dict) else content
    return found if isinstance(found, list) else None


def _pairs(path: Path, of_json: Callable[[Any], list[Any] | None]) -> Iterable[tuple[ImageId, list[str]]]:
    """Return image id and captions of each entry of a file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give captions as .json, .jsonl, .csv, .tsv or .parquet")
    if path.suffix != ".json":
        table = open_table(path)
        return [_pair(path, record.place, record.values, record.fault) for record in table.records]
    try:
        entries = of_json(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path} is not JSON ({error})", "write it again") from None
    if entries is None:
        raise Refusal(f"{path} has no list of captions", 'give a list of {"image_id": ..., "caption": ...}')
    return [_pair(path, f"entry {number}", entry, "") for number, entry in enumerate(entries)]


def _pair(path: Path, place: str, entry: object, fault: str) -> tuple[ImageId, list[str]]:
    values = entry if isinstance(entry, dict) else {}
    image_id = next((values[name] for name in _ID_COLUMNS if values.get(name) not in (None, "")), None)
    caption = next((values[name] for name in _CAPTION_COLUMNS if values.get(name) is not None), None)
    captions = [caption] if isinstance(caption, str) else caption
    if not fault and image_id is None and (found := next((name for name in _ID_COLUMNS if name in values), None)):
        raise Refusal(f"{path}, {place}, has no value in {found}", "write the image's id, or leave the entry out")
    if not fault and caption is None and (found := next((name for name in _CAPTION_COLUMNS if name in values), None)):
        raise Refusal(f"{path}, {place}, has no value in {found}", "write the caption, or leave the entry out")
    if fault or image_id is None or caption is None:
        raise Refusal(
            f"{path}, {place}, {fault or 'has no image_id and caption'}",
            f"name the columns image_id and caption (it has {', '.join(map(str, values)) or 'none'})",
        )
    if not isinstance(image_id, int | str) or isinstance(image_id, bool):
        raise Refusal(f"{path}, {place}, has image_id {_shown(image_id)}", "write a whole number or a text")
    if not _are_texts(captions):
        raise Refusal(f"{path}, {place}, has caption {_shown(caption)}", "write a text, or a list of texts")
    # Tables write numbers as texts, where JSON has numbers.
    is_number = isinstance(image_id, str) and _NUMBER.fullmatch(image_id)
    return (int(image_id) if is_number else image_id), list(captions or ())


def _shown(value: object) -> str:
    return shorten(json.dumps(value, default=str), 80)


def _are_texts(captions: object) -> bool:
    return isinstance(captions, list) and all(isinstance(one, str) for one in captions)


def _present(found: dict[ImageId, Any], path: Path) -> dict[ImageId, Any]:
    if not found:
        raise Refusal(f"{path} has no captions", "give at least one")
    return found
