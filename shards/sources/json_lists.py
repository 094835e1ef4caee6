"""Lists of a JSON file, read an entry at a time, so that the captions of millions of images fit into memory."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import count, repeat
from pathlib import Path
from typing import Any, TextIO

_PART_CHARACTERS = 2**20
_LONGEST_CUT = 16  # characters at the end of a part that may be the beginning of a word or an escape
_NUMBER_CUT = 3  # characters after 1 with which it goes on, as in 1e-5; with fewer it may be cut
_SPACES = ("", " ", "\n", "\t", "\r")
_COMMA = re.compile(r"[ \n\t\r]*,[ \n\t\r]*")
_DECODER: Any = json.JSONDecoder()  # Any, because its scanner is not in the stubs

Entry = tuple[str, int, Any]
"""An entry of a list: the name of the list, the entry's number in it, from 0, and its value."""


def read_lists(path: Path, names: Sequence[str], *, form: str, optional: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the entries of some lists of the object that a JSON file holds; its other values are passed over.

    Args:
        path: path of the file.
        names: names of the lists, all of which the file must have.
        form: description of the file that is wanted, for messages.
        optional: names of further lists, which the file may have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, or has not each list once; raised after the entries before the fault.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of {form}")
    found: list[str] = []
    try:
        with path.open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
        # Half of a surrogate pair is a fault of one caption, not of the file; json.loads does the same.
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as file:
            for name, entries in _Document(file).lists():
                if name in names or name in optional:
                    found.append(name)
                    yield from zip(repeat(name), count(), entries, strict=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch it again") from None
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path} has no list {' and no list '.join(missing)}; use {form}")
    if repeated := [name for name in names if found.count(name) > 1]:
        raise ValueError(f"{path} has {found.count(repeated[0])} lists {repeated[0]}; join them")


class _Document:
    """A JSON text, of which a part is in memory.

    Args:
        file: file of the text, at its beginning.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at, self._is_whole = "", 0, False
        self._num_dropped = self._num_dropped_lines = 0

    def lists(self) -> Iterator[tuple[str, Iterator[Any]]]:
        """Yield the lists that are values of the outermost object: name and entries, to be consumed before the next.

        Raises:
            ValueError: the text is not JSON.
        """
        if (first := self._next()) == "{":
            for _ in self._members("}"):
                yield from self._list()
        elif first == "[":
            for _ in self._entries():
                pass
        else:
            self._value()
        if self._next():
            raise self._fault("Extra data", self._at)

    def _list(self) -> Iterator[tuple[str, Iterator[Any]]]:
        """Read a name and its value, and yield it if it is a list."""
        if self._next() != '"':
            raise self._fault("Expecting property name enclosed in double quotes", self._at)
        name = self._value()
        if self._next() != ":":
            raise self._fault("Expecting ':' delimiter", self._at)
        self._at += 1
        if self._next() != "[":
            self._value()
            return
        entries = self._entries()
        yield name, entries
        for _ in entries:
            pass

    def _entries(self) -> Iterator[Any]:
        for _ in self._members("]"):
            yield self._value()
            text = self._text  # most entries follow here: a method's call for each would take half of the time
            while comma := _COMMA.match(text, self._at):
                try:
                    value, end = _DECODER.scan_once(text, comma.end())
                except (StopIteration, ValueError):
                    break
                if len(text) - end < _NUMBER_CUT:
                    break
                self._at = end
                yield value

    def _members(self, end: str) -> Iterator[None]:
        """Stand at each member of a list or an object in turn, and then after its end."""
        self._at += 1
        if self._next() == end:
            self._at += 1
            return
        while True:
            yield
            mark = self._next()
            if mark not in (",", end):
                raise self._fault("Expecting ',' delimiter", self._at)
            self._at += 1
            if mark == end:
                return

    def _value(self) -> Any:  # noqa: ANN401  any value of JSON
        """Return the next value, and stand after it."""
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.pos > len(self._text) - _LONGEST_CUT or error.msg.startswith("Unterminated string")
                if self._is_whole or not is_cut:
                    raise self._fault(error.msg, error.pos) from None
            else:
                if len(self._text) - end >= _NUMBER_CUT or self._is_whole:
                    self._at = end
                    return value
            self._extend()

    def _next(self) -> str:
        """Skip spaces, and return the character after them; empty at the end of the text."""
        while (mark := self._text[self._at : self._at + 1]) in _SPACES:
            if mark:
                self._at += 1
            elif self._is_whole:
                break
            else:
                self._extend()
        return mark

    def _extend(self) -> None:
        """Drop what was read, and read on; at least as much as is left, so that a long value takes linear time."""
        rest = self._text[self._at :]
        self._num_dropped += self._at
        self._num_dropped_lines += self._text.count("\n", 0, self._at)
        more = self._file.read(max(_PART_CHARACTERS, len(rest)))
        self._text, self._at, self._is_whole = rest + more, 0, not more

    def _fault(self, what: str, at: int) -> ValueError:
        line = self._num_dropped_lines + self._text.count("\n", 0, at) + 1
        return ValueError(f"{what}: line {line}, character {self._num_dropped + at}")
