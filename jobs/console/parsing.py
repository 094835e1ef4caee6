"""Command line and YAML files -> a job's settings: defaults < preset < file < flags."""

import contextlib
import dataclasses
import difflib
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
import yaml

from cluster.settings import as_plain
from jobs.console.output import result_stream, write_line

T = TypeVar("T")
Presets = Mapping[str, tuple[str, T]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation(Generic[T]):
    """A job's settings and what every job takes beside them."""

    settings: Annotated[T, tyro.conf.arg(name="")]
    config: Path | None = None
    """YAML file with settings; flags override it."""
    print_config: bool = False
    """Print the resolved settings as YAML, a valid --config, and end."""
    dry_run: bool = False
    """Print what would be done, and end."""
    json: bool = False
    """Print one JSON document on standard output."""


_sought: ContextVar[list[Invocation[Any]] | None] = ContextVar("sought", default=None)


def parsed_by(job: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> Invocation[Any]:
    """Return what a job would be told, its paths as they were written; the job does nothing.

    Args:
        job: its ``main``.
        arguments: after its name; ``--help`` and what tyro refuses end the process.
    """
    found: list[Invocation[Any]] = []
    token = _sought.set(found)
    try:
        job(arguments)
    except SystemExit:
        if not found:
            raise
    finally:
        _sought.reset(token)
    return found[0]


def parse(
    kind: type[T],
    arguments: Sequence[str],
    *,
    default: T,
    job: str,
    description: str,
    presets: Presets[T] | None = None,
) -> Invocation[T]:
    """Parse a job's command line; ``--help`` and ``--print-config`` end the process.

    Args:
        kind: dataclass of the settings.
        arguments: after the job's name.
        default: settings where nothing else is said; ``tyro.MISSING`` where something must be.
        job: its name.
        description: of the job.
        presets: name -> (what it is, settings); the first argument may name one.

    Raises:
        ValueError: a file or flag holds an unknown name or a wrong value.
        FileNotFoundError: the ``--config`` file does not exist.
    """
    arguments = list(arguments)
    if presets and arguments and not arguments[0].startswith("-"):
        default = _preset(presets, arguments.pop(0))
    file = _config_file(arguments)
    if file:
        default = _merge(default, _read_yaml(file), file)
    if presets:
        shown = "\n".join(f"  {name}: {what}" for name, (what, _) in presets.items())
        description = f"{description}\n\nPresets, as the first argument:\n{shown}"
    with contextlib.redirect_stdout(result_stream()):
        invocation = tyro.cli(
            Invocation[kind],
            args=arguments,
            default=Invocation(settings=default, config=file),
            prog=f"captioning {job}",
            description=description,
            config=(tyro.conf.HelptextFromCommentsOff,),
        )
    sought = _sought.get()
    if sought is not None:
        sought.append(invocation)
        sys.exit(0)
    invocation = dataclasses.replace(invocation, settings=_with_absolute_paths(invocation.settings))
    if invocation.print_config:
        write_line(yaml.safe_dump(as_plain(invocation.settings), sort_keys=False).rstrip())
        sys.exit(0)
    return invocation


def _preset(presets: Presets[T], name: str) -> T:
    if name not in presets:
        raise ValueError(f"there is no preset {name}; use one of {', '.join(presets)}")
    return presets[name][1]


def _config_file(arguments: Sequence[str]) -> Path | None:
    for number, argument in enumerate(arguments):
        if argument == "--config" and number + 1 < len(arguments):
            return Path(arguments[number + 1])
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config="))
    return None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"--config {file} does not exist; check its name") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {file} is not YAML ({' '.join(str(error).split())}); mend it") from None
    if not isinstance(content, dict):
        raise ValueError(f"--config {file} holds no settings; write them as section: {{field: value}}")
    return content


def _merge(base: T, content: Mapping[str, Any], file: Path, prefix: str = "") -> T:
    """Return settings with the file's values in their place, each checked against its field's type."""
    from pydantic import TypeAdapter, ValidationError

    kind = type(base)
    hints = typing.get_type_hints(kind, include_extras=True)  # which say how a location is read
    changes: dict[str, Any] = {}
    for name, value in content.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"{prefix or 'it'} knows {', '.join(hints)}"
            raise ValueError(f"--config {file}: unknown key {prefix}{name}; {hint}")
        current = getattr(base, name)
        if dataclasses.is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"--config {file}: {prefix}{name} is a section, not {value!r}; write its fields below it"
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


def _with_absolute_paths(settings: Any) -> Any:  # noqa: ANN401  any tree of settings
    """Make paths absolute here, for workers run in other folders."""
    changes = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Path):
            changes[field.name] = value.absolute()
        elif field.name == "weights" and Path(value).is_file():
            changes[field.name] = str(Path(value).absolute())
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _with_absolute_paths(value)
    return dataclasses.replace(settings, **changes)
