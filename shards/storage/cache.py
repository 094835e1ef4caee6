"""This node's copies of files that lie elsewhere: named by their content, and shared by all its processes.

A copy is whole or absent. Who maps one holds a shared lock on it as long as the map lives, so that it is not removed.
The kernel drops locks with their process, so that nothing stays behind whoever is killed.
"""

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shards.storage.files import sha256_of

logger = logging.getLogger(__name__)

DEFAULT_CACHE_GIB = 64.0
_COPY_FORM = re.compile(r"[0-9a-f]{64}(\.part)?")
_NUM_FETCHES = 2


def default_cache() -> Path:
    """Return the folder of copies on this node, wherever its home folder lies."""
    return Path(os.environ.get("CAPTIONING_CACHE") or Path.home() / ".cache" / "captioning" / "shards")


class CacheEntry(NamedTuple):
    """A file of which there should be a copy."""

    sha256: str
    num_bytes: int
    source: str
    """Its address, for messages."""
    fetch: Callable[[Path], None]
    """Copies it to a path."""


class ShardCache:
    """A folder of copies under a size limit; those that were not used for longest go first, none that is in use.

    Args:
        folder: created if absent; files that are none of ours stay.
        limit_bytes: of all copies; exceeded where those in use need more.

    Raises:
        ValueError: the folder cannot be made.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        try:
            (folder / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"copies of shards cannot be kept in {folder} ({error.strerror}); name another folder in "
                "CAPTIONING_CACHE on every node"
            ) from None

    def open(self, wanted: CacheEntry) -> BinaryIO:
        """Open the copy of a file; it stays as long as the file, or a map of it, is open.

        Raises:
            ValueError: what was fetched is twice something else.
            OSError: it cannot be fetched.
        """
        while True:
            self.keep(wanted)
            try:
                file = (self._folder / wanted.sha256).open("rb")
            except FileNotFoundError:  # removed before it was in use
                continue
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()

    def keep(self, wanted: CacheEntry, *, waits: bool = True) -> None:
        """Make sure that there is a copy of a file.

        Args:
            wanted: the file.
            waits: for another process that fetches it; otherwise it is left to that.

        Raises:
            ValueError, OSError: as in ``open``.
        """
        path = self._folder / wanted.sha256
        if _touch(path, wanted.num_bytes):
            return
        with self._fetching(wanted.sha256, waits=waits) as is_mine:
            if is_mine and not _touch(path, wanted.num_bytes):  # another process may just have fetched it
                self._make_room(wanted.num_bytes)
                self._fetch(path, wanted)

    def _fetch(self, path: Path, wanted: CacheEntry) -> None:
        part, found = path.with_suffix(".part"), ""
        try:
            for _ in range(_NUM_FETCHES):
                wanted.fetch(part)
                found = sha256_of(part)
                if found == wanted.sha256:
                    with part.open("rb") as file:
                        os.fsync(file.fileno())
                    part.replace(path)
                    return
                logger.warning("%s arrived with other content than its record says", wanted.source)
        finally:
            part.unlink(missing_ok=True)
        raise ValueError(
            f"{wanted.source} has the sha256 {found[:12]}, its record says {wanted.sha256[:12]}, and fetching it again "
            "did not change that; copy it there again, or run the job that made it again"
        )

    def _make_room(self, num_bytes: int) -> None:
        """Remove copies until so many bytes fit under the limit and on the disk."""
        copies = sorted(self._copies())
        excess = sum(size for _, size, _ in copies) + num_bytes - self._limit_bytes
        excess = max(excess, num_bytes - shutil.disk_usage(self._folder).free)
        for _, size, path in copies:
            if excess <= 0:
                return
            if self._remove(path):
                excess -= size
        if excess > 0:
            logger.warning(
                "copies of shards in %s need %.2f GiB more than there is room for, and all are in use; "
                "give more by --cache-gib, or use a smaller --training.shuffle-window-shards",
                self._folder,
                excess / 2**30,
            )

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each copy, whole or not, was last used, its size, and its path."""
        for path in self._folder.iterdir():
            if _COPY_FORM.fullmatch(path.name):
                try:
                    status = path.stat()
                except FileNotFoundError:  # another process removed it
                    continue
                yield status.st_mtime, status.st_size, path

    def _remove(self, path: Path) -> bool:
        """Remove a copy that no one uses, or what a process that was killed left of one; return whether it is gone."""
        if path.suffix:
            with self._fetching(path.stem, waits=False) as is_mine:
                if is_mine:
                    path.unlink(missing_ok=True)
                return is_mine
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True
        return True

    @contextmanager
    def _fetching(self, sha256: str, *, waits: bool) -> Iterator[bool]:
        """Hold the lock of those who fetch a file; yield whether it is held."""
        # One lock for a 256th of all files, so that locks need no removal.
        with (self._folder / "locks" / sha256[:2]).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                # A process that was forked meanwhile has the lock open, too, and closing alone would leave it that.
                fcntl.flock(lock, fcntl.LOCK_UN)


def _touch(path: Path, num_bytes: int) -> bool:
    """Note that a copy is used; return whether there is one."""
    try:
        if path.stat().st_size != num_bytes:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
