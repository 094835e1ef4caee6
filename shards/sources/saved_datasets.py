"""Datasets that Hugging Face's library saved, by ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` -> tables.

A dataset is a folder of Arrow streams, whose names are in its ``state.json``; a dictionary of datasets is a folder of
such folders, whose names are in ``dataset_dict.json``. An image is a struct of its bytes and its path.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shards.file_part import FilePart
from shards.sources.image_files import is_inside
from shards.sources.records import Record, damage_of
from shards.sources.splits import is_split, usual_split

STATE_NAME, _DICT_NAME = "state.json", "dataset_dict.json"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class SavedDataset(NamedTuple):
    """A saved dataset: its folder, the files of its rows, and its columns, of which some are of images."""

    folder: Path
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    image_columns: tuple[str, ...]

    def records(self) -> Iterator[Record]:
        """Yield the rows; an image with its bytes becomes a part of its file, one without becomes its path.

        Raises:
            ValueError: a file is damaged, cut off or compressed.
        """
        number = 0
        for file in self.files:
            for batch, start in _batches(file):
                parts = {name: _parts(batch.column(name), file, start, number) for name in self.image_columns}
                others = batch.select([name for name in self.columns if name not in parts]).to_pylist()
                for index, values in enumerate(others):
                    images = {name: found[index] for name, found in parts.items()}
                    yield Record(f"row {number}", values | images)
                    number += 1


def is_saved(source: Path) -> bool:
    """Return whether a folder is a saved dataset, or a dictionary of them."""
    return (source / _DICT_NAME).is_file() or (source / STATE_NAME).is_file()


def find_saved(source: Path) -> list[tuple[Path, str]]:
    """Return the folders of the datasets in a folder, each with its split; it is empty if there is none.

    Raises:
        FileNotFoundError: a dataset of a dictionary is missing.
        ValueError: the list of a dictionary's datasets is damaged.
    """
    path = source / _DICT_NAME
    if path.is_file():
        names = _read_object(path).get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) and is_inside(name) for name in names):
            raise ValueError(f"{path} has no list splits of names of folders; save the dataset again")
        if missing := [name for name in names if not (source / name).is_dir()]:
            raise FileNotFoundError(f"{source / missing[0]} is missing, which {path.name} names; fetch it again")
        return [(source / name, usual_split(name)) for name in names]
    split = _read_object(source / STATE_NAME).get("_split") if is_saved(source) else None
    # A dataset alone is mostly "train", for it was never split.
    own = usual_split(split) if isinstance(split, str) and is_split(split) else "train"
    return [(source, "" if own == "train" else own)] if is_saved(source) else []


def open_saved(folder: Path) -> SavedDataset:
    """Open a saved dataset.

    Raises:
        FileNotFoundError: a file of it is missing.
        ValueError: it is damaged.
    """
    path = folder / STATE_NAME
    state = _read_object(path)
    listed = state.get("_data_files")
    entries = listed if isinstance(listed, list) else []
    found = [one.get("filename") for one in entries if isinstance(one, dict)]
    names = [name for name in found if isinstance(name, str) and is_inside(name)]
    if not names or len(names) < len(entries):
        raise ValueError(f"{path} has no list _data_files of names of files; save the dataset again")
    if state.get("_indices_files"):
        raise ValueError(
            f"{path} names an order of the rows apart from them, as old releases did; save the dataset again"
        )
    files = tuple(folder / name for name in names)
    if missing := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{missing[0]} is missing, which {path} names; fetch it again")
    schema = _open_stream(files[0])[0].schema
    images = [field.name for field in schema if _is_image(field.type)]
    return SavedDataset(folder, files, tuple(schema.names), tuple(images))


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give a folder that save_to_disk wrote")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); save the dataset again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not an object; save the dataset again")
    return content


def _is_image(kind: Any) -> bool:  # noqa: ANN401  pyarrow has no types
    import pyarrow as pa

    return pa.types.is_struct(kind) and {kind.field(index).name for index in range(kind.num_fields)} == {
        "bytes",
        "path",
    }


def _open_stream(file: Path) -> tuple[Any, int]:
    """Return the reader of an Arrow stream, and the address of the file's first byte in memory."""
    import pyarrow as pa

    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - len(_END_OF_STREAM)))
        if opened.read() != _END_OF_STREAM:
            raise ValueError(f"{file} is cut off, or no Arrow stream; fetch it again")
    try:
        content = pa.memory_map(str(file)).read_buffer()
        return pa.ipc.open_stream(content), content.address
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None


def _batches(file: Path) -> Iterator[tuple[Any, int]]:
    """Yield the batches of rows of an Arrow stream, each with the address of the file's first byte in memory."""
    import pyarrow as pa

    reader, start = _open_stream(file)
    while True:
        try:
            batch = reader.read_next_batch()
            batch.validate(full=True)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from None
        yield batch, start


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} is damaged ({damage_of(error, file)}); fetch it again")


def _parts(column: Any, file: Path, start: int, number: int) -> Sequence[FilePart | str | None]:  # noqa: ANN401
    """Return where the bytes of a column's images are in the file, or an image's path if the column has no bytes.

    Args:
        column: array of structs of bytes and path.
        file: file of the column.
        start: address of the file's first byte in memory.
        number: number of the column's first row.
    """
    content, is_given = column.field("bytes"), column.is_valid().to_pylist()
    paths = [path if given else None for path, given in zip(column.field("path").to_pylist(), is_given, strict=True)]
    has_bytes = np.asarray(content.is_valid()) & np.asarray(is_given, bool)
    _, offsets, data = content.buffers()
    if not has_bytes.any():
        return paths
    ends = np.frombuffer(offsets, np.int64 if "large" in str(content.type) else np.int32)
    ends = ends[content.offset : content.offset + len(content) + 1].astype(np.int64) + (data.address - start)
    if data.address < start or ends[-1] > file.stat().st_size:
        raise ValueError(f"{file} is compressed; save the dataset again, without compression")

    def part(index: int, path: str | None) -> FilePart:
        name = (path or "").replace("\\", "/").rpartition("/")[2] or f"row-{number + index}"
        return FilePart(name, file, int(ends[index]), int(ends[index + 1] - ends[index]))

    return [part(index, path) if has_bytes[index] else path for index, path in enumerate(paths)]
