"""A job of the command line, as its module declares it, and one invocation of it."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation(Generic[T]):
    """A job's settings, and the flags that every job has."""

    settings: Annotated[T, tyro.conf.arg(name="")]
    config: Path | None = None
    """YAML file of settings, which flags override; the defaults hold if not given."""
    print_config: bool = False
    """Print the resolved settings as YAML, which --config accepts, and exit."""
    dry_run: bool = False
    """Print what would be done, and exit."""
    json: bool = False
    """Print the result as one JSON document on standard output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query(Invocation[T]):
    """Invocation of a job that changes nothing, so that it needs no ``--dry-run``."""

    dry_run: tyro.conf.Suppress[tyro.conf.Fixed[bool]] = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(Generic[T]):
    """Declaration of a job; each job's module has one, called ``JOB``."""

    name: str
    """Name on the command line, which is the module's name."""
    settings: type[T]
    """Dataclass of the job's settings; fields without a default are required."""
    run: Callable[[Invocation[T]], None]
    """Function that runs the job."""
    description: str | None
    """Text at the head of ``--help``: the module's docstring."""
    presets: Mapping[str, tuple[str, T]] | None = None
    """Description and settings of each preset, by name. The first argument may name one; otherwise ``default`` is
    used."""
    changes_nothing: bool = False
    """Whether the job only reads, so that it has no ``--dry-run``."""
    loads: Sequence[str] = ()
    """Libraries that the job imports first and that take seconds, which a log line says."""
    prepare: Callable[[Sequence[str]], Sequence[str]] = list
    """Function that rewrites the arguments before they are parsed, for a job whose arguments include those of another
    job."""
    submitted: Callable[[T], tuple["Job[Any]", Sequence[str]]] | None = None
    """Function that returns the job that the settings submit, and its arguments, which are checked with the settings;
    None for a job that submits none."""

    def __post_init__(self) -> None:
        """Refuse ``python -m jobs.NAME``, which would declare the job and end without running it."""
        if self.run.__module__ == "__main__":
            sys.stderr.write(f"error: jobs.{self.name} is not a command; use captioning {self.name}\n")
            sys.exit(2)

    @property
    def command_line(self) -> Any:  # noqa: ANN401  a generic class without its parameter has no type
        """Return the dataclass of the job's flags, its own and those that every job has."""
        return Query if self.changes_nothing else Invocation

    def default(self) -> T:
        """Return the default settings, with ``tyro.MISSING`` for required fields.

        Builds them anew at each call, because a field's default may read the environment.
        """
        if self.presets:
            return self.presets["default"][1]
        fields = dataclasses.fields(self.settings)  # type: ignore[arg-type]  a dataclass
        must = [one.name for one in fields if one.default is one.default_factory is dataclasses.MISSING]
        return self.settings(**dict.fromkeys(must, tyro.MISSING))
