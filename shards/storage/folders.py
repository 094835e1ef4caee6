"""Folders of shard sets and feature sets, local or at a URL; a node caches the files of remote ones."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import BinaryIO, Protocol, TypeVar

from shards.storage.cache import DEFAULT_CACHE_GIB, CacheEntry, ShardCache, default_cache
from shards.storage.files import replace_file
from shards.storage.location import parse_location
from shards.storage.remote import RemoteFolder

logger = logging.getLogger(__name__)

_NUM_THREADS, _NUM_REQUESTS = 4, 16
T = TypeVar("T")


class FileRecord(Protocol):
    """Name, size and digest of a file, as a manifest records them."""

    @property
    def name(self) -> str:
        """Return the file's name."""
        ...

    @property
    def num_bytes(self) -> int:
        """Return the file's size in bytes."""
        ...

    @property
    def sha256(self) -> str:
        """Return the sha256 of the file, as 64 hexadecimal digits."""
        ...


class RemoteShards:
    """The folder of a shard set or feature set at a URL; can be pickled, and used in any process and thread.

    Args:
        url: URL of the folder.
        cache_gib: size limit of this node's copies in GiB, of all sets together.
        sleep: function that waits the given number of seconds before a retry.

    Raises:
        ValueError: the URL contains credentials, or no installed package can open it.
    """

    def __init__(
        self, url: str, *, cache_gib: float = DEFAULT_CACHE_GIB, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._url, self._sleep = url, sleep
        self.cache_gib = cache_gib
        self._remote = RemoteFolder(url, sleep)
        self._prefetcher = _Prefetcher(self._keep)

    def __reduce__(self) -> tuple:
        """Pickle without connections and threads, which belong to one process."""
        return partial(RemoteShards, cache_gib=self.cache_gib, sleep=self._sleep), (self._url,)

    def __str__(self) -> str:
        """Return the URL."""
        return str(self._remote)

    @property
    def name(self) -> str:
        """Return the last part of the URL."""
        return str(self).rpartition("/")[2]

    def read(self, name: str) -> bytes:
        """Return the current content of a small file, without caching it.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be read, even after retries.
        """
        return self._remote.read(name)

    def sizes(self, name: str = "") -> dict[str, int]:
        """Return the size in bytes of each file in the folder, or in a subfolder; raises as ``read``."""
        return self._remote.sizes(name)

    def sizes_of(self, names: Sequence[str]) -> dict[str, int]:
        """Return the sizes in bytes of those files that exist: by one listing, or, of a web server, one by one."""
        if not str(self).startswith(("http://", "https://")):
            return self.sizes()
        with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
            found = zip(names, pool.map(self._remote.size_of, names), strict=True)
            return {name: size for name, size in found if size is not None}

    def stamp_of(self, name: str) -> str:
        """Return a text that changes when a file does: its size, time or tag; raises as ``read``."""
        return self._remote.stamp_of(name)

    def find(self, pattern: str) -> list[str]:
        """Return the URLs of the files below the folder, or of those that match a pattern; raises as ``read``."""
        return self._remote.find(pattern)

    def stream(self, name: str, action: Callable[[BinaryIO], T]) -> T:
        """Return what ``action`` returns of an open file, which it may read once, as in ``RemoteFolder.stream``."""
        return self._remote.stream(name, action)

    def put(self, name: str, content: Path | bytes) -> None:
        """Upload one file, from bytes or a local file; atomic on object stores. Raises as ``read``."""
        self._remote.put(name, content)

    def remove(self, name: str) -> None:
        """Remove a file if it exists; raises as ``read``."""
        self._remote.remove_file(name)

    def open(self, record: FileRecord) -> BinaryIO:
        """Open this node's copy of a file, fetched if needed; it is not removed while the file or a map of it is open.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: its content does not match the record.
            OSError: it cannot be fetched, even after retries.
        """
        return self._cache().open(self._entry(record))

    def prefetch(self, records: Sequence[FileRecord]) -> None:
        """Fetch files into the cache in the background, in this order; those of the last call are skipped."""
        self._prefetcher.request(records)

    def _keep(self, record: FileRecord) -> None:
        self._cache().keep(self._entry(record), waits=False)

    def _entry(self, record: FileRecord) -> CacheEntry:
        fetch = partial(self._remote.get, record.name)
        return CacheEntry(record.sha256, record.num_bytes, f"{self}/{record.name}", fetch)

    def _cache(self) -> ShardCache:
        return ShardCache(default_cache(), limit_bytes=int(self.cache_gib * 2**30))


class _Prefetcher:
    """Fetches files in a few threads of this process, which end when the queue is empty."""

    def __init__(self, fetch: Callable[[FileRecord], None]) -> None:
        self._fetch = fetch
        self._forget()

    def request(self, records: Sequence[FileRecord]) -> None:
        """Queue the files that were not in the last request."""
        if self._process_id != os.getpid():  # threads do not survive a fork, and their queue may be inconsistent
            self._forget()
        new = [record for record in records if record.sha256 not in self._requested]
        self._requested = {record.sha256 for record in records}
        for record in new:
            self._queue.put(record)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(min(len(new), _NUM_THREADS - len(self._threads))):
            self._threads.append(Thread(target=self._work, name="prefetch", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while True:
            try:
                record = self._queue.get_nowait()
            except Empty:
                return
            try:
                self._fetch(record)
            except (OSError, ValueError) as error:  # whoever opens the file gets the same error
                logger.warning("prefetch failed: %s", error)

    def _forget(self) -> None:
        self._process_id = os.getpid()
        self._queue: SimpleQueue[FileRecord] = SimpleQueue()
        self._requested: set[str] = set()
        self._threads: list[Thread] = []


ShardFolder = Path | RemoteShards
"""A folder on this machine, or at a URL."""


def open_folder(location: ShardFolder | str, *, cache_gib: float = DEFAULT_CACHE_GIB) -> ShardFolder:
    """Return a folder for a path or URL.

    Raises:
        ValueError: the URL contains credentials, or no installed package can open it.
    """
    if not isinstance(location, str):
        return location
    parsed = parse_location(location)
    return parsed if isinstance(parsed, Path) else RemoteShards(parsed, cache_gib=cache_gib)


def refuse_foreign(folder: ShardFolder, patterns: Sequence[str]) -> None:
    """Refuse to write into a local folder that holds anything else, such as source code; hidden files are ignored.

    Args:
        folder: folder to write into; a URL is not checked.
        patterns: glob patterns of the names that may be in the folder.

    Raises:
        ValueError: the folder holds a file or folder with another name, or is a file.
    """
    if not isinstance(folder, Path) or not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose a new or empty folder")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    foreign = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise ValueError(
            f"{folder} holds {foreign[0]}{more}, which this command does not write; choose a new or empty folder"
        )


def has_file(folder: ShardFolder, name: str) -> bool:
    """Return whether a folder contains a file; raises as ``read_file``."""
    return (folder / name).is_file() if isinstance(folder, Path) else name in folder.sizes()


def file_sizes(folder: ShardFolder, names: Sequence[str]) -> dict[str, int]:
    """Return the sizes in bytes of those files that exist; raises as ``read``."""
    if not isinstance(folder, Path):
        listed = folder.sizes_of(names)
        return {name: listed[name] for name in names if name in listed}
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def read_file(folder: ShardFolder, name: str) -> bytes:
    """Read a small file.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    return (folder / name).read_bytes() if isinstance(folder, Path) else folder.read(name)


def write_file(folder: ShardFolder, name: str, content: bytes) -> None:
    """Write a small file; on a local disk or an object store, a reader sees the old content or the new, never a part.

    Raises:
        OSError: it cannot be written.
    """
    if isinstance(folder, Path):
        replace_file(folder / name, content)
    else:
        folder.put(name, content)
