"""This node's copies of files at URLs: named by their sha256, and shared by all processes of the node.

A copy is whole or absent. A process that maps one holds a shared lock on it as long as the map lives, so that it is not
removed. The kernel drops locks with their process, so that nothing stays behind whoever is killed. A copy is hashed
when it is fetched, and again where its size, modification time or inode are no longer those of that moment.
"""

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shards.storage.files import sha256_of, stamp_of

logger = logging.getLogger(__name__)

DEFAULT_CACHE_GIB = 64.0
_COPY_FORM = re.compile(r"[0-9a-f]{64}(\.part)?")
_NUM_FETCHES = 2


def default_cache() -> Path:
    """Return the folder of copies on this node, wherever its home folder lies."""
    return Path(os.environ.get("CAPTIONING_CACHE") or Path.home() / ".cache" / "captioning" / "shards")


class CacheEntry(NamedTuple):
    """A file at a URL of which the cache holds a copy, or should."""

    sha256: str
    num_bytes: int
    source: str
    """The file's address, for messages."""
    fetch: Callable[[Path], None]
    """Copies the file to a path."""


class ShardCache:
    """A folder of copies under a size limit: the least recently used are removed first, none that is in use.

    Args:
        folder: the folder of the copies, created if absent; other files in it stay.
        limit_bytes: most bytes of all copies together; exceeded where those in use need more.

    Raises:
        ValueError: the folder cannot be made.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        try:
            for name in ("locks", "verified"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"copies of shards cannot be kept in {folder} ({error.strerror}); name another folder in "
                "CAPTIONING_CACHE on every node"
            ) from None

    def open(self, entry: CacheEntry) -> BinaryIO:
        """Open the copy of a file; it stays as long as the file, or a map of it, is open.

        Raises:
            ValueError: what was fetched is twice something else.
            OSError: it cannot be fetched.
        """
        while True:
            self.keep(entry)
            try:
                file = (self._folder / entry.sha256).open("rb")
            except FileNotFoundError:  # removed before it was in use
                continue
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()

    def keep(self, entry: CacheEntry, *, waits: bool = True) -> None:
        """Make sure that there is a copy of a file.

        Args:
            entry: the file.
            waits: whether to wait for another process that fetches the file; otherwise it is left to that process.

        Raises:
            ValueError, OSError: as in ``open``.
        """
        if self._is_verified(entry):
            return
        with self._fetching(entry.sha256, waits=waits) as is_mine:
            # Another process may just have fetched it.
            if is_mine and not self._is_verified(entry) and not self._verify(entry):
                self._evict(entry.num_bytes)
                self._fetch(self._folder / entry.sha256, entry)

    def _is_verified(self, entry: CacheEntry) -> bool:
        """Return whether there is a copy that has not changed since it was hashed; if so, note that it is used."""
        mark = self._mark(self._folder / entry.sha256)
        try:
            stamp = stamp_of(self._folder / entry.sha256)
            if stamp.num_bytes != entry.num_bytes or mark.read_text() != json.dumps(stamp):
                return False
            os.utime(mark)
        except FileNotFoundError:
            return False
        return True

    def _verify(self, entry: CacheEntry) -> bool:
        """Hash a copy that has no mark, or another one; return whether there is one with the right content."""
        path = self._folder / entry.sha256
        try:
            stamp = stamp_of(path)
            if stamp.num_bytes != entry.num_bytes or sha256_of(path) != entry.sha256:
                return False
        except FileNotFoundError:
            return False
        self._mark(path).write_text(json.dumps(stamp))
        return True

    def _mark(self, path: Path) -> Path:
        """Return the small file that holds a copy's stamp; its own modification time is the copy's last use."""
        return self._folder / "verified" / path.name

    def _fetch(self, path: Path, entry: CacheEntry) -> None:
        part, found = path.with_suffix(".part"), ""
        try:
            for _ in range(_NUM_FETCHES):
                entry.fetch(part)
                found = sha256_of(part)
                if found == entry.sha256:
                    with part.open("rb") as file:
                        os.fsync(file.fileno())
                    stamp = stamp_of(part)
                    part.replace(path)
                    self._mark(path).write_text(json.dumps(stamp))
                    return
                logger.warning("%s arrived with other content than its record says", entry.source)
        finally:
            part.unlink(missing_ok=True)
        raise ValueError(
            f"{entry.source} has the sha256 {found[:12]}, its record says {entry.sha256[:12]}, and fetching it again "
            "did not change that; copy it there again, or run the job that made it again"
        )

    def _evict(self, num_bytes: int) -> None:
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
        """Yield the last use, the size and the path of each copy, whole or not."""
        for path in self._folder.iterdir():
            if _COPY_FORM.fullmatch(path.name):
                try:
                    status, mark = path.stat(), self._mark(path)
                    used = mark.stat() if mark.exists() else status
                except FileNotFoundError:  # another process removed it
                    continue
                yield used.st_mtime, status.st_size, path

    def _remove(self, path: Path) -> bool:
        """Remove a copy that no process uses, or what a killed process left of one; return whether it is gone."""
        if path.suffix:
            with self._fetching(path.stem, waits=False) as is_mine:
                if is_mine:
                    path.unlink(missing_ok=True)
                return is_mine
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                self._mark(path).unlink(missing_ok=True)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True
        return True

    @contextmanager
    def _fetching(self, sha256: str, *, waits: bool) -> Iterator[bool]:
        """Hold the lock for fetching a file; yield whether it is held."""
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
