"""Errors of a full disk that name the folder, whichever library was writing."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

_FULL_CODES = (errno.ENOSPC, errno.EDQUOT)
_PROBE_BYTES = 2**20


@contextmanager
def full_disk_names(folder: Path) -> Iterator[None]:
    """Raise an error that names the folder if its disk is full, whatever the writing library made of that.

    The system does not tell of which file a write failed. safetensors raises an error without the system's code, and
    torch one that does not mention the disk, so the folder is asked.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        code = next((code for code in (getattr(error, "errno", None), _write_code(folder)) if code in _FULL_CODES), 0)
        if code:
            raise OSError(code, os.strerror(code), str(folder)) from error
        raise


def _write_code(folder: Path) -> int | None:
    """Return the system's code of the error that a write into a folder ends with, if it does."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.errno
    return None
