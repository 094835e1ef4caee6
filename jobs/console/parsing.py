"""Parsing of command lines and YAML files into a job's settings.

Precedence, lowest to highest: defaults, preset, file, flags.
"""

import contextlib
import dataclasses
import difflib
import io
import json
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from cluster.errors import Mistakes, error_line, shorten
from cluster.settings import as_plain, with_absolute_paths
from cluster.yaml_file import read_mapping, shown
from jobs.console.help import HelpStream, own_rules
from jobs.console.job import Invocation, Job
from jobs.console.mistakes import out_of_bounds, rejection, section_without_prefix, sections, unchecked
from jobs.console.output import result_stream, write_document
from shards.storage.location import credentials_mistake, with_home

T = TypeVar("T")

_MOST_MISTAKES = 20  # of a file
_EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")


def parse(job: Job[T], arguments: Sequence[str]) -> Invocation[T]:
    """Parse a job's command line. Exits on ``--help`` and on ``--print-config``.

    Args:
        job: the job.
        arguments: arguments that follow the job's name.

    Returns:
        The invocation, with absolute paths, because workers run in other folders.

    Raises:
        Mistakes: flags or keys of the file are unknown or have a wrong type, values are out of bounds, or a file of
            weights does not exist; all of them at once.
        FileNotFoundError: the ``--config`` file does not exist.
        ValueError: the file is not YAML or out of bounds, or there is no such preset.
    """
    invocation, mistakes = _parse(job, arguments)
    if not invocation.print_config:
        mistakes += _missing_weights(invocation.settings)
    submitted = _submitted(job, invocation.settings, mistakes)
    if mistakes:
        raise Mistakes(mistakes)
    invocation = dataclasses.replace(invocation, settings=with_absolute_paths(invocation.settings))
    if invocation.print_config or (submitted and submitted.print_config):
        own = [invocation.settings] if invocation.print_config else []
        texts = [yaml.safe_dump(as_plain(one), sort_keys=False) for one in (*own, *_settings_of(submitted))]
        write_document("---\n".join(texts).rstrip())
        sys.exit(0)
    return invocation


def parse_as_written(job: Job[T], arguments: Sequence[str]) -> Invocation[T]:
    """Parse the command line of a job that runs on another machine: as ``parse`` does, but keep paths as written."""
    invocation, mistakes = _parse(job, arguments)
    if mistakes:
        raise Mistakes(mistakes)
    return invocation


def _submitted(job: Job[T], settings: T, mistakes: list[str]) -> Invocation[Any] | None:
    """Parse the command line of the job that another one submits, if it submits one; add its mistakes to the list."""
    if job.submitted is None:
        return None
    try:
        invocation, found = _parse(*job.submitted(settings))
    except Mistakes as error:
        mistakes += error.lines
    except (ValueError, OSError) as error:
        mistakes.append(error_line(error))
    else:
        mistakes += found
        return invocation
    return None


def _settings_of(invocation: Invocation[Any] | None) -> Iterator[Any]:
    if invocation:
        yield invocation.settings


def _parse(job: Job[T], arguments: Sequence[str]) -> tuple[Invocation[T], list[str]]:
    """Return a job's invocation as written, and the values in it that are out of bounds, one line each."""
    default, description = job.default(), job.description or ""
    arguments = list(job.prepare(arguments))
    if job.presets:
        if arguments and not arguments[0].startswith("-"):
            default = _preset(job.presets, arguments.pop(0))
        shown = "\n".join(f"  {name}: {what}" for name, (what, _) in job.presets.items())
        description = f"{description}\n\nPresets, as the first argument:\n{shown}"
    file, mistakes = _config_file(arguments), []
    with unchecked(default):
        if file:
            default = _merge(default, _read(file), file, mistakes)
        with contextlib.redirect_stdout(HelpStream(result_stream())), _rejections(job.name, mistakes):
            invocation = tyro.cli(
                job.command_line[job.settings],
                args=arguments,
                default=job.command_line(settings=default, config=file),
                prog=f"captioning {job.name}",
                description=description,
                config=(tyro.conf.HelptextFromCommentsOff,),
                registry=own_rules(),
            )
    return invocation, mistakes + out_of_bounds(invocation.settings)


@contextlib.contextmanager
def _rejections(job: str, mistakes: Sequence[str]) -> Iterator[None]:
    """Turn the box that tyro prints about flags that it rejects into one line; raise it with the other mistakes."""
    with contextlib.redirect_stderr(io.StringIO()) as box:
        try:
            yield
        except SystemExit as end:
            if end.code in (None, 0):
                raise
            found = rejection(box.getvalue())
            raise Mistakes([*mistakes, f"{found}; captioning {job} --help lists what it accepts"]) from None


def _preset(presets: Mapping[str, tuple[str, T]], name: str) -> T:
    if name not in presets:
        raise ValueError(f"there is no preset {name}; use one of {', '.join(presets)}")
    return presets[name][1]


def _config_file(arguments: Sequence[str]) -> Path | None:
    for number, argument in enumerate(arguments):
        if argument == "--":  # arguments of another job follow
            return None
        if argument == "--config" and number + 1 < len(arguments):
            return with_home(Path(arguments[number + 1]))
        if argument.startswith("--config="):
            return with_home(Path(argument.removeprefix("--config=")))
    return None


def _read(file: Path) -> dict[str, Any]:
    return read_mapping(file, f"--config {file}", contents="write them as section: {field: value}")


def _merge(base: T, content: Mapping[str, Any], file: Path, mistakes: list[str], prefix: str = "") -> T:
    """Return ``base`` with the file's values, each checked against the type of its field.

    Args:
        base: settings before the file.
        content: values of the file, by name.
        file: path of the file.
        mistakes: list that a line is added to for each unknown key and each value of a wrong type.
        prefix: section that the values belong to, with a period at its end.
    """
    from pydantic import ValidationError

    kind = type(base)
    hints = typing.get_type_hints(kind, include_extras=True)  # with the validator that parses a location
    changes: dict[str, Any] = {}
    for name, value in content.items():
        if len(mistakes) >= _MOST_MISTAKES:
            break
        if name not in hints and (section := section_without_prefix(base, str(name))):
            # As the flag, which has no prefix; the section may also be written out.
            changes[section] = _merge(
                changes.get(section, getattr(base, section)), {name: value}, file, mistakes, prefix
            )
            continue
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"use one of {', '.join(hints)}"
            mistakes.append(f"--config {file}: unknown key {prefix}{shorten(str(name), 100)}; {hint}")
            continue
        current = changes.get(name, getattr(base, name))
        if dataclasses.is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, Mapping):
                mistakes.append(
                    f"--config {file}: {prefix}{name} is a section, not a value such as {shown(value)}; "
                    "indent its fields below it"
                )
                continue
            changes[name] = _merge(current, value, file, mistakes, f"{prefix}{name}.")
            continue
        try:
            changes[name] = _typed(hints[name], value)
            if value == "" and isinstance(changes[name], Path):
                mistakes.append(f"--config {file}: {prefix}{name} is empty; write ./ for the current folder")
        except ValidationError as error:
            mistakes.append(f"--config {file}: {prefix}{name} cannot be {shown(value)} ({error.errors()[0]['msg']})")
        except TypeError:  # a date, a set or bytes, which no field holds
            mistakes.append(f"--config {file}: {prefix}{name} cannot be {shown(value)}; write a text in quotes")
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]


def _typed(kind: Any, value: Any) -> Any:  # noqa: ANN401  any field's type and value
    """Return a value of a file in the type of its field, where true is no number and "16" is a text.

    Raises:
        ValidationError: it has another type.
        TypeError: it is nothing that JSON holds, such as a date.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(kind)
    try:
        # As JSON, because its lists may be tuples, and its texts paths, also where types are checked strictly.
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        if (written := _with_exponents(value)) == value:
            raise
    return adapter.validate_json(json.dumps(written), strict=True)


def _with_exponents(value: Any) -> Any:  # noqa: ANN401  as above
    """Return a value of a file with texts such as 1e-3 as numbers: PyYAML reads only 1.0e-3 as one."""
    if isinstance(value, Mapping):
        return {key: _with_exponents(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_exponents(inner) for inner in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _missing_weights(settings: Any) -> list[str]:  # noqa: ANN401  any tree of settings
    """Return a line for each file of weights in the settings that does not exist on this machine."""
    from captioning.model.weights import is_weights_file, require_weights_file

    found = []
    for name, section in sections(settings):
        weights = getattr(section, "weights", None)
        if isinstance(weights, str) and is_weights_file(weights) and not credentials_mistake(weights, name):
            try:
                require_weights_file(weights)
            except FileNotFoundError as error:
                found.append(f"{name}.weights: {error}")
    return found
