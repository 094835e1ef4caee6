"""Which settings a search may try, checked against the configuration. Imports no torch, Ray or MLflow."""

import difflib
import functools
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cluster.config import TrainRun
from cluster.errors import one_line
from cluster.search.space.distributions import Parameter, parse_distribution
from cluster.settings import differences

DEFAULT_SEARCH: Mapping[str, str] = {
    "optimizer.learning_rate": "loguniform(1e-4, 1e-2)",
    "model.hidden_size": "choice([256, 512, 1024])",
}

_SECTIONS = ("model", "optimizer", "training", "validation")
_SET_ELSEWHERE = {
    "training.num_epochs": "--max-epochs says how long a trial trains at most; leave the key out",
    "validation.where": "a trial's own workers compute its score; leave the key out",
    "validation.best_by": "one score compares all trials; give it as --metric",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """What a search may try: every combination of its parameters' values."""

    parameters: tuple[Parameter, ...]
    """In the order of the file."""

    @property
    def num_points(self) -> int | None:
        """Return how many points there are; None if they are endless."""
        values = [parameter.values for parameter in self.parameters]
        return None if None in values else math.prod(len(some) for some in values if some is not None)

    @property
    def searched(self) -> tuple[Parameter, ...]:
        """Return the parameters that differ between points."""
        return tuple(parameter for parameter in self.parameters if not parameter.is_fixed)

    def description(self) -> dict[str, str]:
        """Return the text of each parameter, by key; ``parse_space`` reads it back."""
        return {parameter.key: str(parameter) for parameter in self.parameters}


def read_search(path: Path) -> Mapping[str, object]:
    """Read a search file: a line a key, such as ``model.hidden_size: choice([256, 512])``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, holds no keys, or one key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree, content = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except FileNotFoundError:
        raise FileNotFoundError(f"--search {path} does not exist; check its name") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"--search {path} is not YAML ({one_line(error, with_kind=False)}); mend it") from None
    if not isinstance(tree, yaml.MappingNode) or not content:
        raise ValueError(f"--search {path} holds no keys; write lines such as model.hidden_size: choice([256, 512])")
    names = [str(name.value) for name, _ in tree.value]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"--search {path} holds {', '.join(sorted(twice))} more than once; leave one of them")
    return content


def parse_space(content: Mapping[str, object], base: TrainRun) -> SearchSpace:
    """Check a search's keys and distributions against the configuration that trials start from.

    Args:
        content: of a search file: key -> distribution, or the one value that fixes the key.
        base: settings of every key that is not searched.

    Raises:
        ValueError: no key, an unknown one, a faulty distribution, or a value that the configuration refuses.
    """
    if not content:
        raise ValueError("the search holds no keys; write lines such as model.hidden_size: choice([256, 512])")
    parameters = tuple(_parameter(str(key), value) for key, value in content.items())
    # First what is fixed, all at once: one key may be what makes another's value valid.
    fixed = {parameter.key: parameter.arguments[0] for parameter in parameters if parameter.is_fixed}
    try:
        base = apply_point(base, fixed)
    except ValueError as error:
        raise ValueError(f"fixed search keys {', '.join(fixed)}: {error}") from None
    for parameter in parameters:
        for value in parameter.arguments:
            try:
                apply_point(base, {parameter.key: value})
            except ValueError as error:
                raise ValueError(f"search key {parameter.key}, {parameter}: {error}") from None
    return SearchSpace(parameters=parameters)


def apply_point(run: TrainRun, point: Mapping[str, Any]) -> TrainRun:
    """Return a run with a point's values in their place.

    Raises:
        ValueError: an unknown key, a value of another type than its field's, or out of its bounds.
    """
    changes: dict[str, dict[str, Any]] = {}
    for key, value in point.items():
        section, _, name = key.partition(".")
        changes.setdefault(section, {})[name] = _typed(key, value)
    return replace(run, **{section: replace(getattr(run, section), **values) for section, values in changes.items()})


def space_differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what differs between the descriptions of two spaces, a text a key; none if they are the same."""
    changes = differences(before, now)
    if not changes and list(before) != list(now):  # a grid is walked in this order
        return [f"order {', '.join(before)} -> {', '.join(now)}"]
    return changes


def _parameter(key: str, value: object) -> Parameter:
    _type_of(key)
    try:
        kind, arguments = parse_distribution(value)
        if kind == "choice":
            arguments = tuple(_typed(key, choice) for choice in arguments)
            if len(set(arguments)) < len(arguments):
                raise ValueError("a choice is there twice; leave one of them")
    except ValueError as error:
        raise ValueError(f"search key {key}, {value}: {error}") from None
    return Parameter(key=key, kind=kind, arguments=arguments)


def _typed(key: str, value: Any) -> Any:  # noqa: ANN401  any field's value
    """Return a value as its field has it, such as 1.0 for 1."""
    from pydantic import TypeAdapter, ValidationError

    kind = _type_of(key)
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        name, what = key.rpartition(".")[2], error.errors()[0]["msg"]
        advice = "use whole numbers: int, logint, or choices" if kind is int else "use values of its type"
        raise ValueError(f"{name} cannot be {value!r} ({what}); {advice}") from None


def _type_of(key: str) -> Any:  # noqa: ANN401  any type hint
    """Return the type of a key that a search may try."""
    known = _searchable()
    section, _, _ = key.partition(".")
    if key in _SET_ELSEWHERE:
        raise ValueError(f"{key} cannot be searched: {_SET_ELSEWHERE[key]}")
    if key in known:
        return known[key]
    if section in typing.get_type_hints(TrainRun) and section not in _SECTIONS:
        raise ValueError(
            f"search key {key} decides nothing about a model; leave it out, and give it as a flag or in --config"
        )
    siblings = [name for name in known if name.startswith(f"{section}.")]
    # Above the usual cutoff, 0.6, for a section's name alone makes its keys alike.
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.78)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(siblings or (f'{name}.*' for name in _SECTIONS))}"
    raise ValueError(f"unknown search key {key}; {hint}")


@functools.cache
def _searchable() -> dict[str, Any]:
    """Return the type of each field of the sections that decide about a model, by key."""
    sections = typing.get_type_hints(TrainRun)
    return {
        f"{section}.{name}": kind
        for section in _SECTIONS
        for name, kind in typing.get_type_hints(sections[section]).items()
    }
