"""Annotations of a source: its usable images, what was set aside, and checks of an entry's form."""

import json
import re
from dataclasses import dataclass, field

from shards.samples import CaptionedImage, SetAside

SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE_NUMBER = re.compile(r"\s*([+-]?\d{1,20})(\.0*)?\s*", re.ASCII)
_KINDS = {int: "an integer", str: "a string", list: "a list"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """The usable images of a source by split, and what was set aside."""

    splits: dict[str, tuple[CaptionedImage, ...]]
    set_aside: tuple[SetAside, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each annotation file, by name."""
    licenses: tuple[str, ...] = ()
    """Licences that the source names, each with its address if it has one."""
    has_splits: bool = True
    """Whether the source tells the images' splits; otherwise all are of ``train``."""


def fault_of(entry: object, form: dict[str, type]) -> str:
    """Return what is wrong with an entry's form; empty if nothing is."""
    if not isinstance(entry, dict):
        return f"is {_shown(entry)}, not an object"
    for name, kind in form.items():
        value = entry.get(name)
        if type(value) is not kind:  # isinstance accepts true and false as integers
            if name not in entry:
                return f"has no {name}"
            return f"has {name} {_shown(value)}, which is not {_KINDS[kind]}{_integer_meant(value, kind)}"
        if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
            return f"has {name} {_shown(value)}, which contains half of a surrogate pair"
    return ""


def _integer_meant(value: object, kind: type) -> str:
    """Return how to write an integer that was given as text or as a float, as pandas does; empty if none was."""
    number = _WHOLE_NUMBER.fullmatch(str(value)) if kind is int and isinstance(value, str | float) else None
    return f' (write {int(number[1])}, without quotes or ".0")' if number else ""


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."
