"""Text that is safe to log and to print: without credentials, and with what is not printable escaped.

File names, captions, vocabularies and the registry's tags come from others. Printed as they are, they could move a
terminal's cursor, forge further lines, or end a command because they are not UTF-8.
"""

import logging
import traceback
import unicodedata
from typing import Any

from shards.storage.location import without_credentials

_PACKAGES = ("captioning", "cluster", "jobs", "shards", "__main__")
# Python calls them unprintable too: spaces of other scripts, and joiners that Hindi and emoji are written with.
_JOINERS = "\u200c\u200d"


def printable(text: str, *, keeps_lines: bool = False) -> str:
    r"""Return a text with unprintable characters escaped, such as ``\n``, ``\x1b``, or ``\udcff`` for a byte 0xFF.

    Args:
        text: text from others, or with parts from others.
        keeps_lines: whether line breaks stay.
    """
    if text.isprintable():
        return text
    kept = _JOINERS + ("\n" if keeps_lines else "")
    return "".join(
        one if one.isprintable() or one in kept or unicodedata.category(one) == "Zs" else _escaped(one) for one in text
    )


def clean(text: str, *, keeps_lines: bool = False) -> str:
    """Return a text as ``printable`` does, and without the credentials of URLs in it."""
    return printable(without_credentials(text), keeps_lines=keeps_lines)


def clean_logs() -> None:
    """Clean every record that this process logs from now on, its own and those of libraries, whatever its handler is.

    Line breaks stay in the messages of libraries, which may be tracebacks.
    """
    make = logging.getLogRecordFactory()
    if getattr(make, "_cleans", False):
        return

    def make_clean(*arguments: Any, **options: Any) -> logging.LogRecord:  # noqa: ANN401  as of any factory
        record = make(*arguments, **options)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            return record  # the handler reports a message that does not fit its arguments
        text = clean(message, keeps_lines=record.name.partition(".")[0] not in _PACKAGES)
        if text != message:
            record.msg, record.args = text, ()
        if record.exc_info and record.exc_info[1]:
            lines = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            record.exc_text = clean(lines, keeps_lines=True)  # a formatter takes it instead of the traceback
        return record

    make_clean._cleans = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_clean)


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")
