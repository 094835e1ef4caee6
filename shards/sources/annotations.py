"""Captioned images, what is set aside of them, and whether an entry of an annotation file has its form."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from shards.samples import CaptionedImage, SetAside

_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS = {int: "whole number", str: "text", list: "list"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """The usable images of a source by split, and what was set aside."""

    splits: dict[str, tuple[CaptionedImage, ...]]
    set_aside: tuple[SetAside, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each annotation file, by name."""


def well_formed(
    content: dict[str, Any], name: str, form: dict[str, type], set_aside: list[SetAside]
) -> list[tuple[int, dict[str, Any]]]:
    """Keep the entries of a list that have the form, each with its index in the list."""
    kept = []
    for index, entry in enumerate(content[name]):
        if fault := fault_of(entry, form):
            set_aside.append(SetAside(key=f"{name}[{index}]", reason=f"{name}[{index}] {fault}"))
        else:
            kept.append((index, entry))
    return kept


def fault_of(entry: object, form: dict[str, type]) -> str:
    """Say what an entry lacks to have the form; nothing if it has it."""
    if not isinstance(entry, dict):
        return f"is {_shown(entry)}, not an object"
    for name, kind in form.items():
        if name not in entry:
            return f"has no {name}"
        if type(entry[name]) is not kind:  # isinstance takes true and false for numbers
            return f"has {name} {_shown(entry[name])}, which is no {_KINDS[kind]}"
        if kind is str and _SURROGATE.search(entry[name]):
            return f"has {name} {_shown(entry[name])}, which holds half a character"
    return ""


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."
