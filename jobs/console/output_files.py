"""Files of results that the command line names: checked before the work, and nothing else is lost to them."""

import os
from pathlib import Path

from cluster.errors import Refusal

_BEGINNINGS = {"out": b"[", "html": b"<!doctype html"}
"""How files of each setting begin: only such a file, or an empty one, is written over."""


def require_output_files(**files: Path | None) -> None:
    """Check that files can be written, as far as that is known without writing.

    Args:
        **files: each file by the name of its setting; None if it is not wanted.

    Raises:
        Refusal: a file is a folder, lies below a file, or in a folder in which this user may not write; two are the
            same; or the file exists and is no earlier result, but a manifest, say.
    """
    found: dict[Path, str] = {}
    for name, path in files.items():
        if path is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if path.is_dir():
            raise Refusal(f"{flag} {path} is a folder", "name a file in it")
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            why = "cannot be written by this user" if nearest.is_dir() else "is no folder"
            raise Refusal(f"{flag} {path} cannot be written, for {nearest} {why}", "name another file")
        if path.exists() and not _is_earlier_result(path, _BEGINNINGS[name]):
            raise Refusal(f"{flag} {path} exists, and is no earlier result of {flag}", "name another file")
        if found.setdefault(path.resolve(), flag) != flag:
            raise Refusal(f"{flag} and {found[path.resolve()]} are the same file, {path}", "name two files")


def _is_earlier_result(path: Path, beginning: bytes) -> bool:
    if not path.is_file():  # such as /dev/null, or a pipe, which keeps nothing
        return True
    with path.open("rb") as file:
        start = file.read(len(beginning))
    return start.lower() in (b"", beginning)
