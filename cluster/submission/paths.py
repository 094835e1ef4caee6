"""Paths of a job to submit: files of this machine, which are uploaded with it, or locations on the cluster."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning.model.weights import is_weights_file
from cluster.errors import Mistakes
from cluster.submission.archive import INPUT_LIMIT_MIB

_URL_FORM = re.compile(r"[a-z][a-z0-9+]*:/")
_PATHS_AS_TEXT = ("model", "checkpoints")  # fields of type str that may hold a path


def travelling_files(settings: Any) -> Iterator[Path]:  # noqa: ANN401  any tree of settings
    """Yield the files of this machine that are uploaded with a job.

    Args:
        settings: settings of the job, a dataclass.

    Raises:
        Mistakes: paths are relative, but are not small files in the current folder.
    """
    mistakes = []
    for name, path in _paths(settings):
        if path.is_absolute() or _URL_FORM.match(f"{path}"):
            continue
        is_inside = ".." not in path.parts
        if not (is_inside and path.is_file() and path.stat().st_size <= INPUT_LIMIT_MIB * 2**20):
            how = "--home FOLDER or CAPTIONING_HOME" if name == "home" else f"such as /mnt/{path.name}"
            mistakes.append(
                f"{name} {path} is relative to a folder of this machine; give it as the cluster's nodes see it, {how} "
                f"(only files in the current folder, of at most {INPUT_LIMIT_MIB} MiB, are uploaded with a job)"
            )
            continue
        yield path
    if mistakes:
        raise Mistakes(mistakes)


def found_here(settings: Any, message: str) -> Path | None:  # noqa: ANN401  as above
    """Return a path of the job that appears in its message and exists on this machine; None if there is none."""
    paths = [path for _, path in _paths(settings) if path.is_absolute()]
    return next((path for path in paths if f"{path}" in message and path.exists()), None)


def _paths(settings: Any, name: str = "") -> Iterator[tuple[str, Path]]:  # noqa: ANN401  any tree of settings
    """Yield every path in a tree of settings, with the name of its field."""
    if dataclasses.is_dataclass(settings):
        for one in dataclasses.fields(settings):
            yield from _paths(getattr(settings, one.name), one.name)
    elif isinstance(settings, tuple):
        for value in settings:
            yield from _paths(value, name)
    elif isinstance(settings, Path) or _is_path(name, settings):
        yield name, Path(settings)


def _is_path(name: str, value: Any) -> bool:  # noqa: ANN401  as above
    """Return whether a field of type ``str`` may hold a path: a model, checkpoints, or a file of weights."""
    return isinstance(value, str) and (name in _PATHS_AS_TEXT or (name == "weights" and is_weights_file(value)))
