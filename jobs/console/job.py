"""A job as its module declares it, and what a command line asks of it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro

T = TypeVar("T")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(Generic[T]):
    """What the command line needs to know of a job; each module of ``jobs`` declares one as ``JOB``."""

    name: str
    """As on the command line; the module's name."""
    settings: type[T]
    """Dataclass of what it takes; a field without a default must be given."""
    run: Callable[[Invocation[T]], None]
    """Does the job."""
    description: str | None
    """Text of ``--help``: the module's docstring."""
    presets: Mapping[str, tuple[str, T]] | None = None
    """Name -> (what it is, settings); the first argument may name one, else it is ``default``."""
    prepare: Callable[[Sequence[str]], Sequence[str]] = list
    """Rewrites the arguments before they are parsed, for a job that takes the command line of another."""

    def default(self) -> T:
        """Return the settings where nothing else is said, with ``tyro.MISSING`` where something must be.

        They are made anew each time, since a field's default may read the environment.
        """
        if self.presets:
            return self.presets["default"][1]
        fields = dataclasses.fields(self.settings)  # type: ignore[arg-type]  a dataclass
        must = [one.name for one in fields if one.default is one.default_factory is dataclasses.MISSING]
        return self.settings(**dict.fromkeys(must, tyro.MISSING))
