"""Cache of the sha256 of local files on this node, so that a file is hashed once and not at every start.

A digest is valid while the file keeps the size, modification time and inode at which it was computed. A change that
keeps all three, such as a disk fault, is not detected; ``captioning convert`` reads every byte again. The digests of a
folder are stored as one file in the node's cache, because the folder itself may be read-only. Several processes may
save at the same time; a digest that is lost is computed again.
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

# A file may change twice within one tick of the filesystem's clock, and its time then hides the second change. So the
# digest of a file that was modified less than this long ago is not remembered.
_SETTLED_NS = 2_000_000_000
_MAX_FOLDERS = 256


class _Entry(NamedTuple):
    num_bytes: int
    modified_ns: int
    inode: int
    sha256: str


class _Stored(NamedTuple):
    """Content of the file with a folder's digests."""

    folder: str
    files: dict[str, _Entry]


_STORED = TypeAdapter(_Stored)


class DigestCache:
    """Digests of the files directly in one folder; threads may share it.

    Args:
        folder: folder of the files.
        cache: folder that stores the digests; the node's cache if not given.
    """

    def __init__(self, folder: Path, *, cache: Path | None = None) -> None:
        self._folder = folder.resolve()
        name = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
        self._path = (cache or _node_cache()) / "digests" / f"{name}.json"
        self._entries = self._stored()
        self._new: dict[str, _Entry] = {}
        self._is_writable = True

    def known(self, name: str) -> str | None:
        """Return the sha256 of a file if it was computed since the file last changed, else None.

        Raises:
            OSError: the file cannot be accessed.
        """
        entry = self._entries.get(name)
        return entry.sha256 if entry and FileStamp(*entry[:3]) == stamp_of(self._folder / name) else None

    def compute(self, name: str) -> str:
        """Read a file and return its sha256; remember it unless the file changed just now.

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
        """Add the new digests to those on disk; if they cannot be written, only log a warning, once."""
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
                "digests of %s cannot be saved in %s (%s), so every start hashes all shards again; set "
                "CAPTIONING_CACHE to another folder",
                self._folder,
                self._path.parent,
                error.strerror,
            )

    def _stored(self) -> dict[str, _Entry]:
        """Return the digests on disk; empty if their file is damaged or belongs to another folder."""
        try:
            stored = _STORED.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return {}
        return stored.files if stored.folder == str(self._folder) else {}

    def _remove_oldest(self) -> None:
        """Remove the digests of the folders that were saved longest ago, beyond ``_MAX_FOLDERS``."""
        paths = sorted(self._path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in paths[:-_MAX_FOLDERS]:
            path.unlink(missing_ok=True)


def _node_cache() -> Path:
    try:
        return default_cache()
    except RuntimeError:  # a user without a home folder has no cache, but can still read shards
        return Path(os.devnull)
