"""File with the records of many shards, beside the manifest: a table of Apache Arrow's IPC format.

It is mapped into memory, so a set of millions of shards opens in seconds; pandas, Polars and DuckDB read it as well. A
set of few shards has them in its manifest. The file's name contains the sha256 of its content, so that a manifest that
is replaced never meets another one's table.
"""

import hashlib
import io
import json
import mmap
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydantic import TypeAdapter, ValidationError

from shards.storage.document import seal
from shards.storage.files import sha256_of
from shards.storage.folders import ShardFolder, read_file, write_file
from shards.table.shard_table import DIGESTS, ROWS_PER_BATCH, ShardRecord, ShardTable

TABLE_PATTERN = "shards-*.arrow"
_TABLE_NAME = re.compile(r"shards-[0-9a-f]{16}\.arrow")
_FILLED = ("name", "split", "num_samples", "num_bytes", "set_aside")
MOST_LISTED = 10_000
"""Shards of a set that its manifest lists; JSON of so many is read in 0.1 s, and by earlier releases."""


class TableFile(NamedTuple):
    """Name, size and digest of a table, as the manifest holds them."""

    name: str
    num_bytes: int
    sha256: str


def with_shards(folder: ShardFolder, content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a manifest, with its shards if they are in a table; one at a URL is copied to the node.

    Raises:
        ValueError: the table is missing, damaged or another one, or names a shard that is not beside it.
        OSError: it cannot be read or fetched.
    """
    if "table" not in content:
        return content
    table = _table_in(content)
    if table is None:
        raise ValueError("it does not name its table's file")
    others = {name: value for name, value in content.items() if name != "table"}
    return others | {"shards": open_table(folder, table, digest=content.get("digest"))}


def save_manifest(
    folder: ShardFolder, name: str, content: dict[str, Any], shards: Sequence[ShardRecord], *, table_version: int
) -> None:
    """Write a set's manifest atomically; the table of a set with many shards is written before.

    Args:
        folder: folder of the set.
        name: name of the manifest.
        content: fields of the manifest but its shards.
        shards: records of the shards.
        table_version: format version of a manifest whose shards are in a table.
    """
    former = _table_of(folder, name)
    if len(shards) <= MOST_LISTED:
        table, content = None, content | {"shards": tuple(shard.as_dict() for shard in shards)}
    else:
        table = _write_table(folder, shards)
        others = {field: value for field, value in content.items() if field != "shards"}
        content = others | {"format_version": table_version, "table": table._asdict()}
    write_file(folder, name, seal(content))
    if former and former != table:
        if isinstance(folder, Path):
            (folder / former.name).unlink(missing_ok=True)
        else:
            folder.remove(former.name)


def _table_of(folder: ShardFolder, name: str) -> TableFile | None:
    """Return the table of the manifest that is about to be replaced, if there is one."""
    try:
        content = json.loads(read_file(folder, name))
    except (OSError, ValueError):
        return None
    return _table_in(content) if isinstance(content, dict) else None


def _table_in(content: dict[str, Any]) -> TableFile | None:
    """Return the table that a manifest names; None if it names none that may be beside it."""
    try:
        table = TypeAdapter(TableFile).validate_python(content.get("table"))
    except ValidationError:
        return None
    return table if _TABLE_NAME.fullmatch(table.name) else None


def _write_table(folder: ShardFolder, shards: Sequence[ShardRecord]) -> TableFile:
    content = _content_of(shards)
    sha256 = hashlib.sha256(content).hexdigest()
    table = TableFile(f"shards-{sha256[:16]}.arrow", len(content), sha256)
    write_file(folder, table.name, content)
    return table


def _content_of(shards: Sequence[ShardRecord]) -> bytes:
    """Return the content of a table's file."""
    import pyarrow as pa

    content = io.BytesIO()
    with pa.ipc.new_file(content, table_schema()) as writer:
        for batch in shards.batches() if isinstance(shards, ShardTable) else _batches_of(shards):
            writer.write_batch(batch)
    return content.getvalue()


def _batches_of(shards: Sequence[ShardRecord]) -> Iterator[Any]:
    import pyarrow as pa

    ordered = sorted(shards, key=lambda shard: shard.name)
    for start in range(0, len(ordered), ROWS_PER_BATCH):
        rows = [_row_of(shard) for shard in ordered[start : start + ROWS_PER_BATCH]]
        yield pa.RecordBatch.from_pylist(rows, schema=table_schema())


def open_table(folder: ShardFolder, file: TableFile, *, digest: str | None) -> ShardTable:
    """Return the table in a folder; one at a URL is copied to the node's cache.

    Args:
        folder: folder of the set.
        file: name, size and digest of the table.
        digest: sha256 that identifies the shards.

    Raises:
        ValueError: it is missing, damaged or another one, or names a shard that is not beside it.
        OSError: it cannot be read or fetched.
    """
    import pyarrow as pa

    with closing(_opened(folder, file)) as opened:
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)  # which keeps a copy from being removed
    try:
        columns = pa.ipc.open_file(pa.py_buffer(content)).read_all()
        columns.validate(full=True)
    except MemoryError:
        raise  # Arrow's own is an ArrowException, too
    except pa.ArrowException as error:
        raise ValueError(f"{file.name} is not a table: {' '.join(str(error).split())}") from None
    is_filled = all(columns[name].null_count == 0 for name in _FILLED if name in columns.schema.names)
    if columns.schema != table_schema() or not is_filled:
        raise ValueError(f"{file.name} has other columns than {', '.join(table_schema().names)}")
    _refuse_elsewhere(columns["name"])
    content.madvise(mmap.MADV_DONTNEED)  # all of it was read for the check, and little of it is needed soon
    return ShardTable(columns, digest=digest)


def _opened(folder: ShardFolder, file: TableFile) -> BinaryIO:
    try:
        if not isinstance(folder, Path):
            return folder.open(file)
        path = folder / file.name
        if path.stat().st_size == file.num_bytes and sha256_of(path) == file.sha256:
            return path.open("rb")
    except FileNotFoundError:
        raise ValueError(f"{file.name} is missing") from None
    raise ValueError(f"{file.name} is not the table that was written with it")


def _refuse_elsewhere(names: Any) -> None:  # noqa: ANN401  pyarrow has no types
    import pyarrow as pa
    from pyarrow import compute

    functions: Any = compute  # made when it is imported
    outside = functions.or_(functions.match_substring(names, "/"), functions.is_in(names, pa.array(["", "."])))
    for name in names.filter(outside).slice(0, 1).to_pylist():
        raise ValueError(f"its shard {name} is not beside it")


def table_schema() -> Any:  # noqa: ANN401  as above
    """Return the ``pyarrow.Schema`` of a table."""
    import pyarrow as pa

    text, digest = pa.string(), pa.binary(32)
    return pa.schema(
        {
            "name": text,
            "split": text,
            "num_samples": pa.int64(),
            "num_bytes": pa.int64(),
            "sha256": digest,
            "plan_digest": digest,
            "set_aside": pa.list_(pa.struct({"key": text, "reason": text})),
            "tar": pa.struct({"location": text, "captions": text, "id_prefix": text}),
        }
    )


def _row_of(shard: ShardRecord) -> dict[str, Any]:
    digests = {name: bytes.fromhex(getattr(shard, name)) or None for name in DIGESTS}
    return asdict(shard) | digests
