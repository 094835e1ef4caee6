"""This node's cache of remote files: copies named by their sha256, shared by all processes of the node.

A copy is complete or absent. A process that maps a copy holds a shared lock on it, so that no other process removes it.
The kernel releases the locks of a killed process. A copy is hashed when it is fetched, and again after its size,
modification time or inode changes.
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
from shards.storage.location import with_home

logger = logging.getLogger(__name__)

DEFAULT_CACHE_GIB = 64.0
_COPY_FORM = re.compile(r"[0-9a-f]{64}(\.part)?")
_NUM_FETCHES = 2


def default_cache() -> Path:
    """Return the folder of this node's copies: CAPTIONING_CACHE, or one below the user's home folder."""
    return with_home(Path(os.environ.get("CAPTIONING_CACHE") or "~/.cache/captioning/shards"))


class CacheEntry(NamedTuple):
    """A remote file that the cache has, or should have, a copy of."""

    sha256: str
    num_bytes: int
    source: str
    """Address of the file, for messages."""
    fetch: Callable[[Path], None]
    """Function that copies the file to a path."""


class ShardCache:
    """A folder of copies with a size limit; the least recently used are removed first, but none in use.

    Args:
        folder: folder of the copies, created if absent; other files in it are kept.
        limit_bytes: size limit of all copies together, in bytes; exceeded if the copies in use need more.

    Raises:
        ValueError: the folder cannot be created.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        try:
            for name in ("locks", "verified"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"shards cannot be cached in {folder} ({error.strerror}); set CAPTIONING_CACHE to another folder on "
                "every node"
            ) from None

    def open(self, entry: CacheEntry) -> BinaryIO:
        """Open the copy of a file, fetched if needed; it is not removed while the file, or a map of it, is open.

        Raises:
            ValueError: the fetched content differs from the entry, also at the second try.
            OSError: the file cannot be fetched.
        """
        while True:
            self.keep(entry)
            try:
                file = (self._folder / entry.sha256).open("rb")
            except FileNotFoundError:  # another process removed it in between
                continue
            fcntl.flock(file, fcntl.LOCK_SH)
            # A removed file can still be locked through its descriptor, but has no link left.
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()

    def keep(self, entry: CacheEntry, *, waits: bool = True) -> None:
        """Make sure that the cache has a copy of a file.

        Args:
            entry: file to copy.
            waits: whether to wait while another process fetches the file; otherwise return at once.

        Raises:
            ValueError, OSError: as in ``open``.
        """
        if self._is_verified(entry):
            return
        with self._fetching(entry.sha256, waits=waits) as is_mine:
            # Another process may have fetched it while this one waited for the lock.
            if is_mine and not self._is_verified(entry) and not self._verify(entry):
                self._evict(entry.num_bytes)
                self._fetch(self._folder / entry.sha256, entry)

    def _is_verified(self, entry: CacheEntry) -> bool:
        """Return whether there is a copy that is unchanged since it was hashed; if so, record that it is used now."""
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
        """Hash a copy without a valid mark; if the content is right, mark it. Return whether it is."""
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
        """Return the path of the mark that holds a copy's stamp; its modification time is the copy's last use."""
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
                logger.warning("%s: the fetched content does not match its record", entry.source)
        finally:
            part.unlink(missing_ok=True)
        raise ValueError(
            f"{entry.source} has the sha256 {found[:12]}, but its record says {entry.sha256[:12]}, also after a second "
            "fetch; upload it again, or rerun the job that made it"
        )

    def _evict(self, num_bytes: int) -> None:
        """Remove copies until a new one of ``num_bytes`` fits under the limit and on the disk."""
        copies = sorted(self._copies())  # by last use, oldest first
        excess = sum(size for _, size, _ in copies) + num_bytes - self._limit_bytes
        excess = max(excess, num_bytes - shutil.disk_usage(self._folder).free)
        for _, size, path in copies:
            if excess <= 0:
                return
            if self._remove(path):
                excess -= size
        if excess > 0:
            logger.warning(
                "cached shards in %s exceed the available space by %.2f GiB, and all are in use; "
                "raise --cache-gib, or lower --training.shuffle-window-shards",
                self._folder,
                excess / 2**30,
            )

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        """Yield the last use (Unix time), size in bytes and path of each copy, complete or partial."""
        for path in self._folder.iterdir():
            if _COPY_FORM.fullmatch(path.name):
                try:
                    status, mark = path.stat(), self._mark(path)
                    used = mark.stat() if mark.exists() else status
                except FileNotFoundError:  # another process removed it
                    continue
                yield used.st_mtime, status.st_size, path

    def _remove(self, path: Path) -> bool:
        """Remove a copy that no process uses, or the partial copy of a killed process; return whether it is gone."""
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
        """Hold the lock for fetching a file; yield whether this process has it."""
        # Files share 256 locks, by the first two digits of their digest, so lock files need no removal.
        with (self._folder / "locks" / sha256[:2]).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                # A process forked meanwhile inherits the open file: closing it here alone would not release the lock.
                fcntl.flock(lock, fcntl.LOCK_UN)
