"""The sha256 of files in a folder, remembered on this node, so that a file is read once and not at every start.

A digest counts as long as the file has the size, modification time and inode at which it was computed. A change that
keeps all three, such as a fault of the disk, is out of reach: ``captioning convert`` reads every byte again. The
digests of a folder are one file in the node's cache, for the folder itself may be read-only. Several processes may save
at the same time: what one of them loses is only computed again.
"""

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from shards.storage.cache import default_cache
from shards.storage.files import FileStamp, replace_file, sha256_of, stamp_of

logger = logging.getLogger(__name__)

# A file may change twice within one tick of its clock, and then has the time of a change that was not read.
_SETTLED_NS = 2_000_000_000
_MAX_FOLDERS = 256


class _Entry(NamedTuple):
    num_bytes: int
    modified_ns: int
    inode: int
    sha256: str


class _Stored(NamedTuple):
    """Content of the file of a folder's digests."""

    folder: str
    files: dict[str, _Entry]


_STORED = TypeAdapter(_Stored)


class DigestCache:
    """Digests of the files directly in one folder; threads may share it.

    Args:
        folder: the folder of the files.
        cache: where digests are kept; the node's cache if not given.
    """

    def __init__(self, folder: Path, *, cache: Path | None = None) -> None:
        self._folder = folder.resolve()
        name = hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]
        self._path = (cache or _node_cache()) / "digests" / f"{name}.json"
        self._entries = self._stored()
        self._new: dict[str, _Entry] = {}
        self._is_writable = True

    def known(self, name: str) -> str | None:
        """Return the sha256 of a file if it was computed since the file last changed.

        Raises:
            OSError: the file is out of reach.
        """
        entry = self._entries.get(name)
        return entry.sha256 if entry and FileStamp(*entry[:3]) == stamp_of(self._folder / name) else None

    def compute(self, name: str) -> str:
        """Read a file and return its sha256; it is remembered unless the file has just been changed.

        Raises:
            OSError: the file cannot be read.
        """
        path = self._folder / name
        before, now_ns = stamp_of(path), time.time_ns()
        sha256 = sha256_of(path)
        if before == stamp_of(path) and before.modified_ns < now_ns - _SETTLED_NS:
            self._entries[name] = self._new[name] = _Entry(*before, sha256)
        return sha256

    def save(self) -> None:
        """Write what was computed beside what other processes wrote; a cache that cannot be written is only logged."""
        if not self._new or not self._is_writable:
            return
        try:
            present = {path.name for path in self._folder.iterdir()}
            entries = {name: entry for name, entry in (self._stored() | self._new).items() if name in present}
            replace_file(self._path, json.dumps(_Stored(str(self._folder), entries)._asdict()).encode())
            self._remove_oldest()
        except OSError as error:
            self._is_writable = False
            logger.warning(
                "digests of %s cannot be kept in %s (%s), so that every start reads all of it; name another folder in "
                "CAPTIONING_CACHE",
                self._folder,
                self._path.parent,
                error.strerror,
            )

    def _stored(self) -> dict[str, _Entry]:
        """Return the digests on disk; none if their file is damaged, or that of another folder."""
        try:
            stored = _STORED.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return {}
        return stored.files if stored.folder == str(self._folder) else {}

    def _remove_oldest(self) -> None:
        """Forget the folders that were read longest ago, beyond so many."""
        paths = sorted(self._path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in paths[:-_MAX_FOLDERS]:
            path.unlink(missing_ok=True)


def _node_cache() -> Path:
    try:
        return default_cache()
    except RuntimeError:  # this user has no home folder, which is no reason to refuse shards
        return Path(os.devnull)
