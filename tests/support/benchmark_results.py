"""Results of benchmarks: kept as JSON, shown as tables for a terminal and as the README file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.table import Table

from tests.benchmarks.measuring import Row
from tests.support.repository import ROOT

FOLDER = ROOT / "tests" / "benchmarks"
_NAME = "results.json"
_BY_HAND = "by_hand.md"  # figures of commands that a person timed
_HEADER = """# Benchmarks

Each figure of this project stands beside its peer's, measured in the same run, in turns. The peer is what a user would
pick instead; the limit is the part of the work that no program can leave out. *Times the peer* is above 1 where this
project is the better one, for speeds and times alike; *of the limit* is 1 at the limit. `__init__.py` says how a
benchmark is added. `python -m tests.benchmarks` measures again and writes this file.
"""
BEST_KNOWN = (("images", 0), ("images", 3), ("captioning", 0), ("decoder", 0), ("overheads", 0))
"""Rows of the main README, by benchmark and number."""
_BEST_KNOWN_HEAD = "| what | ours | peer |\n|---|---|---|\n"
_COLUMNS = ("what", "ours", "peer", "limit", "times the peer", "of the limit")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a benchmark has measured.

    Attributes:
        command: command line that measures it again.
        machine: machine that it ran on.
        seconds: time that it took; None if it was not noted.
        rows: rows of its table.
    """

    command: str
    machine: str
    seconds: float | None
    rows: tuple[Row, ...]


def load(folder: Path = FOLDER) -> dict[str, Result]:
    """Return the results of a folder by the benchmark's name; none if the folder has none."""
    path = folder / _NAME
    found = json.loads(path.read_text()) if path.exists() else {}
    return {name: Result(**one | {"rows": tuple(Row(**row) for row in one["rows"])}) for name, one in found.items()}


def save(results: Mapping[str, Result], folder: Path = FOLDER) -> None:
    """Write the results of a folder."""
    content = {name: asdict(results[name]) for name in sorted(results)}
    (folder / _NAME).write_text(f"{json.dumps(content, indent=1, ensure_ascii=False)}\n")


def as_table(name: str, result: Result) -> Table:
    """Return a result as a table for a terminal."""
    columns, *lines = _lines(result)
    table = Table(*columns, title=f"{name}: {_where(result)}", title_justify="left")
    for line in lines:
        table.add_row(*line)
    return table


def page(results: Mapping[str, Result]) -> str:
    """Return the content of README.md."""
    parts = [_HEADER]
    for name in sorted(results):
        result = results[name]
        columns, *rows = _lines(result)
        lines = [columns, ("---",) * len(columns), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"## {name}\n\n`{result.command}`, {_where(result)}:\n\n{table}\n")
    return "\n".join([*parts, (FOLDER / _BY_HAND).read_text()])


def best_known(results: Mapping[str, Result]) -> str:
    """Return the table of the best-known rows, in Markdown."""
    found = [results[name].rows[row] for name, row in BEST_KNOWN if name in results and row < len(results[name].rows)]
    cells = [_cells(replace(row, note="")) for row in found]
    return _BEST_KNOWN_HEAD + "".join(f"| {what} | {ours} | {peer} |\n" for what, ours, peer, *_ in cells)


def with_best_known(readme: str, results: Mapping[str, Result]) -> str:
    """Return a README with its table of the best-known rows made from results.

    Raises:
        ValueError: it has no such table.
    """
    before, head, after = readme.partition(_BEST_KNOWN_HEAD)
    if not head:
        raise ValueError(f"the README has no table that begins with {_BEST_KNOWN_HEAD.splitlines()[0]}; write its head")
    rest = after.splitlines(keepends=True)
    end = next((number for number, line in enumerate(rest) if not line.startswith("|")), len(rest))
    return before + best_known(results) + "".join(rest[end:])


def _where(result: Result) -> str:
    return result.machine if result.seconds is None else f"{result.seconds:.0f} s on {result.machine}"


def _lines(result: Result) -> list[tuple[str, ...]]:
    """Return the headings of a result's columns, then the cells of each row."""
    headings = list(dict.fromkeys(heading for row in result.rows for heading in row.cells))
    if not headings:
        return [_COLUMNS, *map(_cells, result.rows)]
    own = [(row.what, *(row.cells.get(heading, "-") for heading in headings)) for row in result.rows]
    return [("what", *headings), *own]


def _cells(row: Row) -> tuple[str, ...]:
    def figure(value: float | None, name: str = "") -> str:
        return "-" if value is None else f"{name} {value:.4g} {row.unit}".strip()

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    what = f"{row.what}; {row.note}" if row.note else row.what
    peer, limit = figure(row.peer, row.peer_name), figure(row.limit, row.limit_name)
    return what, figure(row.ours), peer, limit, share(row.ratio), share(row.share_of_limit)
