"""The search space: searched keys and their distributions, checked against the configuration they change.

Imports no torch, Ray or MLflow.
"""

import difflib
import functools
import itertools
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from captioning.decoder_config import DecoderName
from cluster.config import TrainRun
from cluster.errors import shorten
from cluster.search.space.distributions import Parameter, parse_distribution
from cluster.settings import differences
from cluster.yaml_file import read_mapping, shown

DEFAULT_SEARCH: Mapping[str, str] = {
    "optimizer.learning_rate": "loguniform(1e-4, 1e-2)",
    "model.hidden_size": "choice([256, 512, 1024])",
}

_DECODER = "model.decoder"
_SECTIONS = ("model", "optimizer", "training", "validation")
_SET_ELSEWHERE = {
    "training.num_epochs": "--max-epochs limits the length of a trial; leave the key out",
    "training.self_critical_epochs": "--training.self-critical-epochs sets it for all trials; leave the key out",
    "validation.where": "a trial's own workers compute its score; leave the key out",
    "validation.best_by": "one score compares all trials; give it as --metric",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """The points of a search: every combination of the parameters' values."""

    parameters: tuple[Parameter, ...]
    """Parameters in the order of the search file."""

    @property
    def num_points(self) -> int | None:
        """Return the number of points; None if there are infinitely many."""
        values = [parameter.values for parameter in self.parameters]
        return None if None in values else math.prod(len(some) for some in values if some is not None)

    @property
    def searched(self) -> tuple[Parameter, ...]:
        """Return the parameters that have more than one value."""
        return tuple(parameter for parameter in self.parameters if not parameter.is_fixed)

    def description(self) -> dict[str, str]:
        """Return the text of each parameter, by key; ``parse_space`` reads it back."""
        return {parameter.key: str(parameter) for parameter in self.parameters}


def read_search(path: Path) -> Mapping[str, object]:
    """Read a search file, which has a line for each key, such as ``model.hidden_size: choice([256, 512])``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not YAML or out of bounds, holds no keys, or holds one key twice.
    """
    return read_mapping(path, f"--search {path}", contents="write lines such as model.hidden_size: choice([256, 512])")


def parse_space(content: Mapping[str, object], base: TrainRun) -> SearchSpace:
    """Parse a search file's content, and check each key and value against the base configuration.

    Args:
        content: distribution of each key, or the single value that fixes it.
        base: base configuration, with the values of all other keys.

    Raises:
        ValueError: there is no key, a key is unknown, a distribution is wrong, or the configuration refuses a value.
    """
    if not content:
        raise ValueError("the search holds no keys; write lines such as model.hidden_size: choice([256, 512])")
    parameters = tuple(_parameter(str(key), value) for key, value in content.items())
    # Fixed keys first, and all at once, because one may make the value of another valid.
    fixed = {parameter.key: parameter.arguments[0] for parameter in parameters if parameter.is_fixed}
    try:
        base = apply_point(base, fixed)
    except ValueError as error:
        raise ValueError(f"fixed search keys {', '.join(fixed)}: {error}") from None
    space = SearchSpace(parameters=parameters)
    for parameter in parameters:
        for decoder, value in itertools.product(decoders_of(space, base), parameter.arguments):
            try:
                # A value must suit every decoder, because points combine all values.
                apply_point(base, {_DECODER: decoder, parameter.key: value})
            except ValueError as error:
                raise ValueError(f"search key {parameter.key}, {parameter}: {error}") from None
    return space


def decoders_of(space: SearchSpace, base: TrainRun) -> Sequence[DecoderName]:
    """Return the decoders that trials have: those that the search tries, or else the base configuration's."""
    searched = [parameter.arguments for parameter in space.parameters if parameter.key == _DECODER]
    return searched[0] if searched else (base.model.decoder,)


def apply_point(run: TrainRun, point: Mapping[str, Any]) -> TrainRun:
    """Return a configuration with the values of a point.

    Raises:
        ValueError: a key is unknown, or a value has another type than its field or is out of bounds.
    """
    changes: dict[str, dict[str, Any]] = {}
    for key, value in point.items():
        section, _, name = key.partition(".")
        changes.setdefault(section, {})[name] = _typed(key, value)
    return replace(run, **{section: replace(getattr(run, section), **values) for section, values in changes.items()})


def space_differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the differences between the descriptions of two spaces, one text per key; empty if they are equal."""
    changes = differences(before, now)
    if not changes and list(before) != list(now):  # the order of the keys determines the order of a grid's points
        return [f"order {', '.join(before)} -> {', '.join(now)}"]
    return changes


def _parameter(key: str, value: object) -> Parameter:
    _type_of(key)
    try:
        kind, arguments = parse_distribution(value)
        if kind == "choice":
            arguments = tuple(_typed(key, choice) for choice in arguments)
            if len(set(arguments)) < len(arguments):
                raise ValueError("a choice occurs twice; keep one of them")
    except ValueError as error:
        raise ValueError(f"search key {key}, {shorten(str(value), 200)}: {error}") from None
    return Parameter(key=key, kind=kind, arguments=arguments)


def _typed(key: str, value: Any) -> Any:  # noqa: ANN401  any field's value
    """Return a value in the type of its field, such as 1.0 for 1."""
    from pydantic import TypeAdapter, ValidationError

    kind = _type_of(key)
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        name, what = key.rpartition(".")[2], error.errors()[0]["msg"]
        advice = (
            "use whole numbers: int, logint, or choices"
            if int in (kind, *typing.get_args(kind))
            else "use values of its type"
        )
        raise ValueError(f"{name} cannot be {shown(value)} ({what}); {advice}") from None


def _type_of(key: str) -> Any:  # noqa: ANN401  any type hint
    """Return the type of a key's field.

    Raises:
        ValueError: the key is unknown, or cannot be searched.
    """
    known = _searchable()
    section, _, _ = key.partition(".")
    if key in _SET_ELSEWHERE:
        raise ValueError(f"{key} cannot be searched: {_SET_ELSEWHERE[key]}")
    if key in known:
        return known[key]
    if section in typing.get_type_hints(TrainRun) and section not in _SECTIONS:
        raise ValueError(
            f"search key {key} does not influence the model; leave it out, and set it by a flag or in --config"
        )
    siblings = [name for name in known if name.startswith(f"{section}.")]
    # Above difflib's default cutoff of 0.6, because all keys of a section begin alike.
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.78)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(siblings or (f'{name}.*' for name in _SECTIONS))}"
    raise ValueError(f"unknown search key {key}; {hint}")


@functools.cache
def _searchable() -> dict[str, Any]:
    """Return the type of each searchable key's field: the fields of the sections that determine the weights."""
    sections = typing.get_type_hints(TrainRun)
    return {
        f"{section}.{name}": kind
        for section in _SECTIONS
        for name, kind in typing.get_type_hints(sections[section]).items()
    }
