"""Parsing of command lines and YAML files into a job's settings.

Precedence, lowest to highest: defaults, preset, file, flags.
"""

import contextlib
import dataclasses
import difflib
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from cluster.settings import as_plain, with_absolute_paths
from jobs.console.job import Invocation, Job
from jobs.console.output import result_stream, write_line

T = TypeVar("T")


def parse(job: Job[T], arguments: Sequence[str]) -> Invocation[T]:
    """Parse a job's command line. Exits on ``--help``, on ``--print-config``, and on flags that tyro rejects.

    Args:
        job: the job.
        arguments: arguments that follow the job's name.

    Returns:
        The invocation, with absolute paths, because workers run in other folders.

    Raises:
        ValueError: the file has an unknown key, or a value in the file or of a flag is out of bounds.
        FileNotFoundError: the ``--config`` file does not exist.
    """
    invocation = parse_as_written(job, arguments)
    invocation = dataclasses.replace(invocation, settings=with_absolute_paths(invocation.settings))
    if invocation.print_config:
        write_line(yaml.safe_dump(as_plain(invocation.settings), sort_keys=False).rstrip())
        sys.exit(0)
    return invocation


def parse_as_written(job: Job[T], arguments: Sequence[str]) -> Invocation[T]:
    """Parse the command line of a job that runs on another machine: as ``parse`` does, but keep paths as written."""
    default, description = job.default(), job.description or ""
    arguments = list(job.prepare(arguments))
    if job.presets:
        if arguments and not arguments[0].startswith("-"):
            default = _preset(job.presets, arguments.pop(0))
        shown = "\n".join(f"  {name}: {what}" for name, (what, _) in job.presets.items())
        description = f"{description}\n\nPresets, as the first argument:\n{shown}"
    file = _config_file(arguments)
    if file:
        default = _merge(default, _read_yaml(file), file)
    with contextlib.redirect_stdout(result_stream()):
        return tyro.cli(
            Invocation[job.settings],
            args=arguments,
            default=Invocation(settings=default, config=file),
            prog=f"captioning {job.name}",
            description=description,
            config=(tyro.conf.HelptextFromCommentsOff,),
        )


def _preset(presets: Mapping[str, tuple[str, T]], name: str) -> T:
    if name not in presets:
        raise ValueError(f"there is no preset {name}; use one of {', '.join(presets)}")
    return presets[name][1]


def _config_file(arguments: Sequence[str]) -> Path | None:
    for number, argument in enumerate(arguments):
        if argument == "--":  # arguments of another job follow
            return None
        if argument == "--config" and number + 1 < len(arguments):
            return Path(arguments[number + 1])
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config="))
    return None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"--config {file} does not exist; check the name") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {file} is not valid YAML ({' '.join(str(error).split())}); fix it") from None
    if not isinstance(content, dict):
        raise ValueError(f"--config {file} contains no settings; write them as section: {{field: value}}")
    return content


def _merge(base: T, content: Mapping[str, Any], file: Path, prefix: str = "") -> T:
    """Return ``base`` with the file's values, each checked against the type of its field."""
    from pydantic import TypeAdapter, ValidationError

    kind = type(base)
    hints = typing.get_type_hints(kind, include_extras=True)  # with the validator that parses a location
    changes: dict[str, Any] = {}
    for name, value in content.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"use one of {', '.join(hints)}"
            raise ValueError(f"--config {file}: unknown key {prefix}{name}; {hint}")
        current = getattr(base, name)
        if dataclasses.is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"--config {file}: {prefix}{name} is a section, not a value such as {value!r}; "
                    "indent its fields below it"
                )
            changes[name] = _merge(current, value, file, f"{prefix}{name}.")
            continue
        try:
            changes[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            raise ValueError(
                f"--config {file}: {prefix}{name} cannot be {value!r} ({error.errors()[0]['msg']})"
            ) from None
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]
