"""Results of a job on standard output. What libraries print there is logged, at level DEBUG."""

import contextlib
import io
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TextIO

from cluster.job_progress import JOB_VARIABLE
from cluster.log_text import clean
from cluster.settings import as_plain

logger = logging.getLogger(__name__)

_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


class _DebugLog(io.TextIOBase):
    """Text stream that logs each line."""

    def write(self, text: str, /) -> int:
        for line in filter(str.strip, text.splitlines()):
            logger.debug("%s", line)
        return len(text)


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Reserve standard output for results; what libraries print there is logged at level DEBUG.

    Ray prints a paragraph there for each worker that ends, even if this project has ended it.
    """
    token = _results.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(_DebugLog()):
            yield
    finally:
        _results.reset(token)


def result_stream() -> TextIO:
    """Return the stream that results are written to."""
    return _results.get() or sys.stdout


def log_loading(libraries: Sequence[str]) -> None:
    """Log that libraries are about to be imported, which takes seconds; nothing if they have been already."""
    if missing := [name for name in libraries if name not in sys.modules]:
        logger.info("loading %s", ", ".join(missing))


def log_next(*words: object) -> None:
    """Log the command that usually follows; in a submitted job, as another submission.

    Args:
        words: words of the command after ``captioning``, which are quoted for a shell where they need it.
    """
    command = shlex.join([*(["submit"] if JOB_VARIABLE in os.environ else []), *map(str, words)])
    logger.info("next: captioning %s", command)


def write_line(*columns: str, stream: TextIO | None = None) -> None:
    """Write one line: columns with tabs between them, and unprintable characters in them escaped.

    Args:
        columns: texts of the line.
        stream: stream to write to; None for that of results.
    """
    write_document("\t".join(clean(column) for column in columns), stream=stream)


def write_document(text: str, *, stream: TextIO | None = None) -> None:
    """Write a text of several lines that this program has made, such as YAML.

    What the stream's encoding cannot express is escaped, so that one caption does not lose all others.
    """
    stream = stream or result_stream()
    encoding = stream.encoding or "utf-8"
    stream.write(f"{text.encode(encoding, 'backslashreplace').decode(encoding)}\n")


def write_json(document: Any) -> None:  # noqa: ANN401  any tree of results
    """Write a job's result as one JSON document."""
    write_document(json.dumps(as_plain(document), indent=2))
