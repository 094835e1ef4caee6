"""Atomic writes: a file is complete or absent, even if the process is killed at any moment."""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

_LINKED = 2  # names of a file that a second name was given to


class FileStamp(NamedTuple):
    """Size, modification time and inode of a file; while they stay the same, the content counts as unchanged."""

    num_bytes: int
    modified_ns: int
    inode: int


def stamp_of(path: Path) -> FileStamp:
    """Return a file's stamp.

    Raises:
        OSError: the file cannot be accessed.
    """
    status = path.stat()
    return FileStamp(status.st_size, status.st_mtime_ns, status.st_ino)


def require_listable(folder: Path) -> None:
    """Check that a folder may be listed: ``Path.glob`` takes one that this user may not list for an empty one.

    Raises:
        OSError: it may not, or it cannot be listed.
    """
    os.scandir(folder).close()


@contextmanager
def full_disk_names(path: Path) -> Iterator[None]:
    """Add a file's path to the error of a full disk, which comes from a write and does not say of which file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` for writing; sync and rename it at the end, or remove it after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A unique name, so that two writers of one file do not write to one temporary file.
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with full_disk_names(path):
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # before the rename, which may reach the disk before the content does
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old content or the new, never a part."""
    with replacing(path) as file:
        file.write(content)


def create_file(path: Path, content: bytes) -> None:
    """Write ``content`` to a new file atomically: of several processes that create one path, one succeeds.

    Raises:
        FileExistsError: the file exists.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with full_disk_names(path), beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(beside)
        except FileExistsError:
            # A network filesystem may repeat a request whose answer was lost; then the file is this one.
            if beside.stat().st_nlink < _LINKED:
                raise
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_torn(folder: Path, names: str) -> None:
    """Remove temporary files that a killed process left; call it only while no other process writes these files.

    Args:
        folder: folder of the files.
        names: glob pattern of the files' final names.
    """
    for path in folder.glob(f".{names}.*.tmp"):
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
