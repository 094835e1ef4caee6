"""Locks of folders: one process at a time writes to a folder, and a second one learns which process that is.

A lock is a locked file in the folder itself. The kernel releases it when its process ends, even by SIGKILL.
"""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from shards.storage.files import full_disk_names

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"


@contextmanager
def sole_writer(folder: Path, *, waits: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, which is created if absent and removed again if nothing was written.

    Args:
        folder: folder to write into.
        waits: whether to wait for another process that holds the lock; otherwise it is an error.

    Raises:
        BlockingIOError: another process holds the lock; the message is the name of the process.
        OSError: the folder cannot be created or written.
    """
    path, new = folder / LOCK_NAME, [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = lock_file(path, waits=waits)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is locked: a process that waits for it locks a new file
        fcntl.flock(file, fcntl.LOCK_UN)  # not by closing alone: a process forked meanwhile holds the file open
        file.close()
        with contextlib.suppress(OSError):  # not empty
            for one in new:
                one.rmdir()


def lock_file(path: Path, *, waits: bool = False, pid: int | None = None) -> TextIO:
    """Lock a file for this process; return the open file, which holds the lock until it is closed.

    Args:
        path: file to lock, created if absent; its content becomes the name of the process.
        waits: whether to wait for another process that holds the lock; otherwise it is an error.
        pid: id of the process to name; this one's if None.

    Raises:
        BlockingIOError: another process holds the lock; the message is the name of the process.
    """
    while True:
        file = path.open("a+")
        try:
            _lock(file, path, waits=waits)
        except BaseException:
            file.close()
            raise
        if _is_at(file, path):
            break
        file.close()  # the process that held it has removed it, and the folder if that was empty
        path.parent.mkdir(parents=True, exist_ok=True)
    file.truncate(0)
    file.write(f"process {pid or os.getpid()} on {socket.gethostname()}")
    with full_disk_names(path):
        file.flush()
    return file


def _lock(file: TextIO, path: Path, *, waits: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read() or "another process"
        if not waits:
            raise BlockingIOError(holder) from None
        logger.warning("%s is being written by %s; waiting until that ends", path.parent, holder)
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(file: TextIO, path: Path) -> bool:
    """Return whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
