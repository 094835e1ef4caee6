"""Settings as plain data: conversion for YAML and JSON, flattening, comparison, parsing; and absolute paths."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from captioning.config import ModelConfig
from shards.storage.location import credentials_mistake, with_home

T = TypeVar("T")

_ABSENT = "(absent)"
_RANGE_FORM = re.compile(r"(\d+)(?::(\d+))?")
_NOT_IN_MODEL_NAMES = set("""'"`\\@%?#/:""")
_NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST_NAME = 200
"""Largest number of characters in a name: filesystems and MLflow allow some 250, and some names are made longer."""
HISTORY_SUFFIX = ".history"
"""End of the name of the registered model that holds another one's history."""
_LARGEST_NUMBER = 2**53  # exact as a float, which JSON, YAML and MLflow may make of it


def as_plain(value: Any) -> Any:  # noqa: ANN401  any tree of settings or results
    """Return nested dataclasses, mappings, sequences and paths as types that JSON and YAML can hold."""
    if isinstance(value, ModelConfig):
        return value.resolved()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def with_absolute_paths(settings: T) -> T:
    """Return settings with every path made absolute, from ~ too, because workers run in other folders.

    Args:
        settings: a dataclass, whose fields may be dataclasses too.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]  a dataclass
        value = getattr(settings, field.name)
        if isinstance(value, Path):
            changes[field.name] = with_home(value).absolute()
        elif field.name == "weights" and with_home(Path(value)).is_file():
            changes[field.name] = str(with_home(Path(value)).absolute())
        elif dataclasses.is_dataclass(value):
            changes[field.name] = with_absolute_paths(value)
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one flat mapping from dotted names to values."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a text ``name before -> now`` for each value that differs, sorted by name."""
    missing = object()  # differs from every value, None included
    return [
        f"{name} {_shown(before, name)} -> {_shown(now, name)}"
        for name in sorted({*before, *now})
        if before.get(name, missing) != now.get(name, missing)
    ]


def credential_mistakes(section: Any) -> Iterator[str]:  # noqa: ANN401  any section of settings
    """Yield a line for each setting of a section that has a URL with credentials; sections in it are not searched."""
    for field in dataclasses.fields(section):
        for text in _texts(getattr(section, field.name)):
            if mistake := credentials_mistake(text, field.name):
                yield mistake


def empty_mistakes(section: Any) -> Iterator[str]:  # noqa: ANN401  any section of settings
    """Yield a line for each setting of a section that may be left out, but is an empty text."""
    for field in dataclasses.fields(section):
        if field.default is None and getattr(section, field.name) == "":
            yield f"{field.name} is an empty text, as of an unset variable; leave it out"


def number_mistakes(section: Any) -> Iterator[str]:  # noqa: ANN401  any section of settings
    """Yield a line for each number of a section that no setting can be; sections in it are not searched."""
    for field in dataclasses.fields(section):
        for number in _numbers(getattr(section, field.name)):
            if not abs(number) <= _LARGEST_NUMBER:  # nan is not, either
                yield f"{field.name} {number} is not finite or too large; use at most {_LARGEST_NUMBER}"


def parse_range(text: str) -> tuple[int, int] | None:
    """Return the bounds of ``N`` or ``MIN:MAX``; None if the text has another form or MIN is above MAX."""
    form = _RANGE_FORM.fullmatch(text)
    low, high = (int(form[1]), int(form[2] or form[1])) if form else (1, 0)  # (1, 0) is refused below
    return (low, high) if low <= high else None


def is_name(text: str) -> bool:
    """Return whether a text can name a run, a search or a job: it must be a folder name without spaces or slashes."""
    return _NAME_FORM.fullmatch(text) is not None and len(text) <= LONGEST_NAME


def check_model_name(name: str) -> None:
    """Check that a name can be a registered model's, so that ``models:/NAME@alias`` and MLflow's filters can name it.

    Raises:
        ValueError: it cannot.
    """
    if not name or not name.isprintable() or name != name.strip() or set(name) & _NOT_IN_MODEL_NAMES:
        raise ValueError(
            f"name {name!r} cannot be a model's name; use letters, digits, spaces, periods, dashes and underscores"
        )
    if name.endswith(HISTORY_SUFFIX):
        raise ValueError(f"name {name!r} is for the history of another model; use one that ends otherwise")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a model's name of {len(name)} characters is too long; use at most {LONGEST_NAME}")


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401  any setting
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _numbers(value: Any) -> Iterator[float]:  # noqa: ANN401  any setting
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        yield from _numbers(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner)


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return str(settings[name]) if name in settings else _ABSENT
