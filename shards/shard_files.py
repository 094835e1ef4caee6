"""Files of a set's shards: beside the manifest, or, of a set that is used in place, where its tars are."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from shards.storage.cache import DEFAULT_CACHE_GIB
from shards.storage.folders import FileRecord, RemoteShards, ShardFolder, file_sizes, open_folder
from shards.table.shard_table import ShardRecord, ShardTable


class _File(NamedTuple):
    """A shard's file in its own folder."""

    name: str
    num_bytes: int
    sha256: str


class ShardFiles:
    """The files of shards; can be pickled, and used in any process and thread.

    Args:
        folder: folder of the shard set.
        cache_gib: size limit of this node's copies of remote tars in GiB; that of the folder if it is at a URL.
    """

    def __init__(self, folder: ShardFolder, *, cache_gib: float = DEFAULT_CACHE_GIB) -> None:
        self.folder = folder
        self.cache_gib = cache_gib if isinstance(folder, Path) else folder.cache_gib
        self._opened: dict[str, ShardFolder] = {}

    def __reduce__(self) -> tuple:
        """Pickle without the opened folders."""
        return _rebuild, (self.folder, self.cache_gib)

    def find(self, record: ShardRecord) -> tuple[ShardFolder, str]:
        """Return the folder of a shard's file, and the file's name in it.

        Raises:
            ValueError: no installed package can open the folder's URL.
        """
        if record.tar is None:
            return self.folder, record.name
        place, _, name = record.tar.location.rpartition("/")
        if place not in self._opened:
            root = "/" if record.tar.location.startswith("/") else "."
            folder = open_folder(place or root, cache_gib=self.cache_gib)
            if isinstance(folder, Path) and isinstance(self.folder, Path):
                folder = Path(os.path.normpath(self.folder / folder))  # an absolute path stays what it is
            self._opened[place] = folder
        return self._opened[place], name

    def location(self, record: ShardRecord) -> str:
        """Return the path or URL of a shard."""
        folder, name = self.find(record)
        return f"{folder}/{name}"

    def open(self, record: ShardRecord) -> BinaryIO:
        """Open a shard, or this node's copy of one at a URL.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: its content does not match the record, or a folder or a pipe has its name.
            OSError: it cannot be read or fetched, even after retries.
        """
        folder, name = self.find(record)
        if not isinstance(folder, Path):
            return folder.open(_file(record, name))
        path = folder / name
        if path.exists() and not path.is_file():  # reading from a pipe would wait for a writer
            raise ValueError("it is no ordinary file")
        return path.open("rb")

    def local(self, records: Sequence[ShardRecord]) -> dict[Path, dict[str, str]]:
        """Return the files that are on this machine: for each folder, the name of each file by that of its shard."""
        found: dict[Path, dict[str, str]] = {}
        for record in records:
            folder, name = self.find(record)
            if isinstance(folder, Path):
                found.setdefault(folder, {})[record.name] = name
        return found

    def remote_sizes(self, records: Sequence[ShardRecord]) -> np.ndarray:
        """Return the sizes in bytes of the shards at URLs, (N,) int64."""
        if isinstance(records, ShardTable):
            return records.num_bytes[records.are_at_urls(is_set_at_url=not isinstance(self.folder, Path))]
        remote = [record.num_bytes for record in records if not isinstance(self.find(record)[0], Path)]
        return np.array(remote, np.int64)

    def sizes(self, records: Sequence[ShardRecord]) -> dict[str, int]:
        """Return the size in bytes of each shard that exists, by name.

        Raises:
            OSError: a URL does not answer.
        """
        found: dict[str, int] = {}
        by_folder: dict[int, tuple[ShardFolder, dict[str, ShardRecord]]] = {}
        for record in records:
            folder, name = self.find(record)
            by_folder.setdefault(id(folder), (folder, {}))[1][name] = record
        for folder, files in by_folder.values():
            sizes = file_sizes(folder, [*files])
            found |= {files[name].name: size for name, size in sizes.items()}
        return found

    def prefetch(self, records: Sequence[ShardRecord]) -> None:
        """Fetch remote shards into the node's cache in the background, in this order."""
        by_folder: dict[int, tuple[RemoteShards, list[FileRecord]]] = {}
        for record in records:
            folder, name = self.find(record)
            if isinstance(folder, RemoteShards):
                by_folder.setdefault(id(folder), (folder, []))[1].append(_file(record, name))
        for folder, files in by_folder.values():
            folder.prefetch(files)

    def max_open(self, records: Sequence[ShardRecord], *, limit: int) -> int:
        """Return how many shards may be open at once, so that copies of remote ones take at most half of the cache."""
        sizes = self.remote_sizes(records)
        return min(limit, max(2, int(self.cache_gib * 2**30 / 2 / sizes.max()))) if len(sizes) else limit


def _file(record: ShardRecord, name: str) -> _File:
    return _File(name, record.num_bytes, record.sha256)


def _rebuild(folder: ShardFolder, cache_gib: float) -> ShardFiles:
    return ShardFiles(folder, cache_gib=cache_gib)
