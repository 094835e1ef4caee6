"""Records of a table: a CSV, TSV, JSON Lines or Parquet file -> dictionaries by column."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shards.sources.annotations import SURROGATE

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_DELIMITERS = {".csv": ",;|\t", ".tsv": "\t", ".txt": ",\t|"}
_LONGEST_CELL = 1_000_000  # characters; Python's own limit of 131,072 is less than a list of many captions


class Record(NamedTuple):
    """A row of a table: where it stands in the file, its values by column, and what is wrong with it, if anything."""

    place: str
    values: dict[str, Any]
    fault: str = ""


class Table(NamedTuple):
    """The columns and the records of a table."""

    columns: tuple[str, ...]
    records: Iterator[Record]


def open_table(path: Path) -> Table:
    """Open a table by the suffix of its file; ``.txt`` is a CSV.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, not UTF-8, or not of the form that its suffix says.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give a table: {', '.join(SUFFIXES)}")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    return _json_lines(path) if suffix == ".jsonl" else _delimited(path)


def read_text(path: Path) -> str:
    """Return the content of a text file, without a byte-order mark, with line feeds alone as line ends.

    Raises:
        ValueError: it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ValueError(f"{path} is UTF-16; save it as UTF-8") from None
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path} is not UTF-8 in line {line} ({error.reason}); save it as UTF-8") from None
    if (zero := text.find("\0")) >= 0:
        line = text.count("\n", 0, zero) + 1
        raise ValueError(f"{path} holds a zero byte in line {line}, as UTF-16 does; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _delimited(path: Path) -> Table:
    text = read_text(path)
    header = text.split("\n", 1)[0]
    # The one that cuts the header into most columns; a comma if there is a single column.
    delimiter = max(_DELIMITERS[path.suffix.lower()], key=header.count)
    csv.field_size_limit(_LONGEST_CELL)
    quoting = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL  # Flickr30k's captions hold quotation marks
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, skipinitialspace=True, strict=True)
    try:
        columns = tuple(name.strip() for name in next(rows))
    except (StopIteration, csv.Error) as error:
        raise ValueError(
            f"{path} has no header ({str(error) or 'it is empty'}); name the columns in its first line"
        ) from None
    _refuse_repeated(path, columns)
    return Table(columns, _cells(path, rows, columns))


def _refuse_repeated(path: Path, columns: Sequence[str]) -> None:
    if repeated := [name for name in columns if name and columns.count(name) > 1]:
        raise ValueError(f"{path} has {columns.count(repeated[0])} columns {repeated[0]}; rename or remove one")


def _cells(path: Path, rows: Any, columns: Sequence[str]) -> Iterator[Record]:  # noqa: ANN401  csv's class is private
    while True:
        place = f"line {rows.line_num + 1}"
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:  # the rest of the file may belong to an open quotation mark
            raise ValueError(f"{path}, {place}, is not a row of a table ({error}); mend its quotation marks") from None
        if not any(cell.strip() for cell in cells):
            continue
        fault = "" if len(cells) == len(columns) else f"has {len(cells)} columns, the header {len(columns)}"
        yield Record(place, dict(zip(columns, (cell.strip() for cell in cells), strict=False)), fault)


def _json_lines(path: Path) -> Table:
    records = list(_objects(read_text(path)))
    columns = dict.fromkeys(name for record in records for name in record.values)
    if records and not columns:
        first = records[0]
        raise ValueError(f"{path}, {first.place}, {first.fault or 'has no columns'}; write an object a line")
    return Table(tuple(columns), iter(records))


def _objects(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        fault, values = "", None
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            fault = f"is not JSON ({error.msg}: character {error.pos})"
        except (ValueError, RecursionError) as error:
            fault = f"is not JSON ({error})"
        if not fault and not isinstance(values, dict):
            fault = "is not an object"
        if not fault and "\\u" in line and SURROGATE.search(json.dumps(values, ensure_ascii=False)):
            fault, values = "contains half of a surrogate pair", {name: None for name in values or ()}
        yield Record(f"line {number}", values if isinstance(values, dict) else {}, fault)


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.open("rb").close()  # Python's error of a file that may not be read has its path, and Arrow's has not
    try:
        file: Any = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not Parquet ({damage_of(error, path)}); write it again") from None
    _refuse_repeated(path, file.schema_arrow.names)

    def records() -> Iterator[Record]:
        number = 0
        try:
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    yield Record(f"row {number}", values)
                    number += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = damage_of(error, path)
            raise ValueError(f"{path} is damaged after row {number} ({reason}); write it again") from None

    return Table(tuple(file.schema_arrow.names), records())


def damage_of(error: Exception, path: Path) -> str:
    """Return what Arrow says of a damaged file, on one line; raise its error if the machine is at fault instead.

    Args:
        error: an error of Arrow; one of the system has a number, and gets the file's path.
        path: the file.

    Raises:
        OSError: the file cannot be read.
        MemoryError: there is not enough memory.
    """
    if isinstance(error, OSError) and error.errno:
        error.filename = error.filename or str(path)
        raise error
    if isinstance(error, MemoryError):
        raise error
    return " ".join(str(error).split())


def captions_of(value: object) -> list[str] | None:
    """Return the captions of a cell: a text, a list, or a list written as JSON; None if it is neither."""
    if isinstance(value, str):
        if not value.startswith("["):
            return [value]
        try:
            content = json.loads(value)
        except ValueError:
            return [value]
        return content if isinstance(content, list) and all(isinstance(one, str) for one in content) else [value]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return list(value)
    return None


def plain(value: Any) -> Any:  # noqa: ANN401  whatever a table holds
    """Return a value as JSON holds it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)


def shown(value: object) -> str:
    """Return a value for a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
