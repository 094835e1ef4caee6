"""Results of a job on standard output. Everything else, such as what libraries print, goes to standard error."""

import contextlib
import json
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TextIO

from cluster.settings import as_plain

_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Reserve standard output for results, because libraries print there too, such as Ray when a worker dies."""
    token = _results.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(token)


def result_stream() -> TextIO:
    """Return the stream that results are written to."""
    return _results.get() or sys.stdout


def write_line(text: str = "") -> None:
    """Write one line of a job's result."""
    result_stream().write(f"{text}\n")


def write_json(document: Any) -> None:  # noqa: ANN401  any tree of results
    """Write a job's result as one JSON document."""
    write_line(json.dumps(as_plain(document), indent=2))
