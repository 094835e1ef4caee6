"""A job's results on standard output, and nothing else there: what libraries print goes to standard error."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Keep standard output for results; Ray, for one, prints there when a worker dies."""
    token = _results.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(token)


def result_stream() -> TextIO:
    """Return where results go."""
    return _results.get() or sys.stdout


def write_line(text: str = "") -> None:
    """Write a line of a job's result."""
    result_stream().write(f"{text}\n")


def write_json(document: Any) -> None:  # noqa: ANN401  any tree of results
    """Write a job's result as one JSON document."""
    write_line(json.dumps(plain(document), indent=2))


def plain(value: Any) -> Any:  # noqa: ANN401  any tree of settings or results
    """Turn dataclasses, mappings, sequences and paths into what JSON and YAML hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
