"""Mistakes in a command line, collected, so that all of them are reported at once and one line each."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.settings import credential_mistakes, empty_mistakes, number_mistakes

_DESCRIPTION_INDENT = 8  # of tyro's help texts inside a box


def sections(settings: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401  any tree of settings
    """Yield every section of the settings with its name, such as ``optimizer``; last the whole, without a name.

    A section whose flags have no prefix has the name of the section that it is in.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            prefixes = (name, "" if _is_without_prefix(hints[field.name]) else field.name)
            yield from sections(value, ".".join(filter(None, prefixes)))
    yield name, settings


@contextmanager
def unchecked(settings: Any) -> Iterator[None]:  # noqa: ANN401  any tree of settings
    """Let the classes of these settings accept values out of bounds, until the end of the block.

    Each section checks its values when it is built, so parsing would end at the first section with a mistake.
    """
    owners = {kind for _, section in sections(settings) for kind in type(section).__mro__}
    checks = {kind: vars(kind)["__post_init__"] for kind in owners if "__post_init__" in vars(kind)}
    try:
        for kind in checks:
            kind.__post_init__ = lambda self: None  # type: ignore[attr-defined]
        yield
    finally:
        for kind, check in checks.items():
            kind.__post_init__ = check  # type: ignore[attr-defined]


def out_of_bounds(settings: Any) -> list[str]:  # noqa: ANN401  any tree of settings
    """Return a line for each value that the settings' own checks refuse, or that has credentials, with its section."""
    found = []
    for name, section in sections(settings):
        lines = [*credential_mistakes(section), *empty_mistakes(section)]
        try:
            getattr(section, "__post_init__", lambda: None)()
        except ValueError as error:
            lines += str(error).splitlines()
        named = {line.split(maxsplit=1)[0] for line in lines}
        lines += [line for line in number_mistakes(section) if line.split(maxsplit=1)[0] not in named]
        found += [_with_section(line, name, section) for line in dict.fromkeys(lines)]
    return found


# Tyro's words for it if a setting may be one of several types, or a list.
_EMPTY = re.compile(
    r"(no type matching \S+ could be instantiated from|Could not find valid parse for arguments:) \[''\]"
)


def rejection(box: str) -> str:
    """Return the message in a box that tyro prints, as one line, with the flag that tyro suggests if there is one.

    The box has a frame, or, where standard output is not UTF-8, a title with a rule below it.
    """
    lines = [line.strip("│").rstrip() for line in box.splitlines() if line.startswith(("│", " ")) and line.strip()]
    if "│" not in box:
        lines = [line[1:] for line in lines[2:]]
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip(" ─-"):
            parts[-1].append(line)
        else:
            parts.append([])
    told = " ".join(line.strip() for line in parts[0] if not line.startswith(" " * _DESCRIPTION_INDENT))
    told = told.replace(" .", ".").replace(
        "argument 'settings.", "argument '"
    )  # tyro names the field of Invocation too
    told = _EMPTY.sub("an empty text, as of an unset variable, cannot be taken", told)
    similar = [line.split()[0] for part in parts[1:] for line in part if line.strip().startswith("--")]
    similar = [flag for flag in similar if flag not in told.split(":")[0]]
    return f"{told.rstrip('.')}; did you mean {similar[0]}?" if similar else told.rstrip(".") or " ".join(box.split())


def section_without_prefix(settings: Any, field: str) -> str | None:  # noqa: ANN401  any tree of settings
    """Return the name of the section that has a field and whose flags have no prefix; None if there is none."""
    for name, hint in typing.get_type_hints(type(settings), include_extras=True).items():
        section = getattr(settings, name)
        if dataclasses.is_dataclass(section) and _is_without_prefix(hint) and hasattr(section, field):
            return name
    return None


def _is_without_prefix(hint: Any) -> bool:  # noqa: ANN401  any type
    """Return whether tyro is told to name the flags of a section without a prefix."""
    return any(getattr(annotation, "name", None) == "" for annotation in getattr(hint, "__metadata__", ()))


def _with_section(line: str, name: str, section: Any) -> str:  # noqa: ANN401  any section of settings
    is_of_field = line.split(maxsplit=1)[0] in {field.name for field in dataclasses.fields(section)}
    return line if not name else f"{name}.{line}" if is_of_field else f"{name}: {line}"
