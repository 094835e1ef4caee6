"""Scans that are kept beside the manifest until it is written, so that an interrupted index goes on where it was."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from shards.records import RECORDS_FOLDER
from shards.storage.folders import ShardFolder, read_file, write_file
from shards.tars.scan import TarScan
from shards.tars.stream import stamp_of


class StoredScan(NamedTuple):
    """A scan, and the counts of its words."""

    scan: TarScan
    words: dict[str, Any]


class ScanStore:
    """The scans of an index that is under way.

    Args:
        folder: folder of the index.
        settings: what determines the scans beside the tars; those made with others are not used.
    """

    def __init__(self, folder: ShardFolder, settings: tuple[str, ...]) -> None:
        self._folder, self._settings = folder, list(settings)

    def save(self, scan: TarScan, words: Mapping[str, Any]) -> None:
        """Keep a scan; raises OSError if it cannot be written."""
        content = {"settings": self._settings, "scan": asdict(scan), "words": words}
        write_file(self._folder, _name_of(scan.location), json.dumps(content).encode())

    def load(self, location: str) -> StoredScan | None:
        """Return the scan of a tar; None if there is none, or only one with other settings."""
        try:
            content = json.loads(read_file(self._folder, _name_of(location)))
            if content["settings"] != self._settings:
                return None
            scan = TypeAdapter(TarScan).validate_python(content["scan"])
            return StoredScan(scan, content["words"]) if scan.location == location else None
        except (FileNotFoundError, ValueError, KeyError, TypeError, ValidationError):
            return None

    def has(self, location: str) -> bool:
        """Return whether there is a scan of a tar, and the tar has not changed since.

        Raises:
            OSError: the tar cannot be accessed.
        """
        stored = self.load(location)
        return stored is not None and stored.scan.stamp == stamp_of(location)

    def clear(self) -> None:
        """Remove all scans, because the manifest holds what is needed of them."""
        if not isinstance(self._folder, Path):
            for name in self._folder.sizes(RECORDS_FOLDER):
                self._folder.remove(f"{RECORDS_FOLDER}/{name}")
            return
        records = self._folder / RECORDS_FOLDER
        for path in records.glob("*.json"):
            path.unlink()
        for path in records.glob(".*.tmp"):
            path.unlink()
        if records.is_dir():
            records.rmdir()


def _name_of(location: str) -> str:
    return f"{RECORDS_FOLDER}/{hashlib.sha256(location.encode()).hexdigest()[:32]}.json"
