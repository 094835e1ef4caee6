"""Files of results that the command line names: those that cannot be written are refused before the work."""

import os
from pathlib import Path

from cluster.errors import Refusal


def require_output_files(**files: Path | None) -> None:
    """Check that files can be written, as far as that is known without writing.

    Args:
        **files: each file by the name of its setting; None if it is not wanted.

    Raises:
        Refusal: a file is a folder, lies below a file, or in a folder in which this user may not write.
    """
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
