"""Store of a run's checkpoints: a folder that all nodes share, or any URL that fsspec reaches (s3://, gs://)."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from captioning.training.checkpoint_description import DESCRIPTION_NAME
from cluster.errors import Refusal
from shards.storage.files import full_disk_names, replace_file
from shards.storage.location import local_folder
from shards.storage.remote import RemoteFolder


class CheckpointStore:
    """Location of checkpoints and small files; can be pickled and used in any process and thread.

    Args:
        location: absolute path of a folder, or a URL.
        sleep: function that waits a number of seconds, called before each retry.

    Raises:
        Refusal: the path is relative.
        ValueError: the URL contains credentials, or no installed fsspec backend reaches it.
    """

    def __init__(self, location: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        folder = _local_folder(location)
        self._location = folder or RemoteFolder(location, sleep)

    @property
    def is_local(self) -> bool:
        """Return whether the store is a folder, so that checkpoints are read and written in place."""
        return isinstance(self._location, Path)

    def __str__(self) -> str:
        """Return the location."""
        return str(self._location)

    def write(self, name: str, write: Callable[[Path], None]) -> None:
        """Store a checkpoint.

        A remote location receives checkpoint.json last, and a folder without it is no checkpoint. So a process that is
        killed during the upload leaves no checkpoint; it may leave other files there, and its local temporary folder.

        Args:
            name: name of the checkpoint.
            write: creates the folder at the given path and fills it, checkpoint.json last.

        Raises:
            FileExistsError: a checkpoint with this name exists.
            OSError: the location rejects the files, after all retries.
        """
        location = self._location
        if isinstance(location, Path):
            write(location / name)
            return
        if location.list_entries(name):
            raise FileExistsError(f"{location}/{name} exists already; write the checkpoint under another name")
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
            folder = Path(scratch) / name
            write(folder)
            for path in sorted(folder.iterdir(), key=_description_last):
                location.put(f"{name}/{path.name}", path)

    def fetch(self, name: str, into: Path) -> Path:
        """Return a local folder with a checkpoint; the caller checks that its files are intact.

        Args:
            name: name of the checkpoint.
            into: folder that no other process uses; a remote checkpoint is copied to ``into / name``.

        Raises:
            FileNotFoundError: the location has no such checkpoint.
            OSError: the location cannot be read, after all retries.
        """
        location = self._location
        is_local = isinstance(location, Path)
        names = (
            [] if is_local else [Path(one) for one, is_folder in location.list_entries(name).items() if not is_folder]
        )
        if not ((location / name / DESCRIPTION_NAME).is_file() if is_local else Path(DESCRIPTION_NAME) in names):
            raise FileNotFoundError(
                f"{location}/{name} is no checkpoint: it has no {DESCRIPTION_NAME}; use another one"
            )
        if is_local:
            return location / name
        folder = into / name
        shutil.rmtree(folder, ignore_errors=True)  # an earlier, incomplete copy
        folder.mkdir(parents=True)
        for path in sorted(names, key=_description_last):
            location.get(f"{name}/{path.name}", folder / path.name)
        return folder

    def names(self) -> list[str]:
        """Return the names of all folders in the location, sorted; some may be incomplete checkpoints."""
        if isinstance(self._location, Path):
            if not self._location.is_dir():
                return []
            return sorted(path.name for path in self._location.iterdir() if path.is_dir())
        return sorted(name for name, is_folder in self._location.list_entries().items() if is_folder)

    def file_names(self) -> list[str]:
        """Return the names of the small files in the location."""
        if isinstance(self._location, Path):
            return [path.name for path in self._location.glob("*") if path.is_file()]
        return [name for name, is_folder in self._location.list_entries().items() if not is_folder]

    def remove(self, name: str) -> None:
        """Remove a checkpoint, complete or not, its checkpoint.json first; do nothing if there is none.

        A file that another process is still writing may remain; removing the checkpoint again removes it.

        Raises:
            OSError: checkpoint.json cannot be removed.
        """
        if isinstance(self._location, Path):
            (self._location / name / DESCRIPTION_NAME).unlink(missing_ok=True)
            shutil.rmtree(self._location / name, ignore_errors=True)
        else:
            self._location.remove_file(f"{name}/{DESCRIPTION_NAME}")
            self._location.remove_folder(name)

    def put_file(self, name: str, content: bytes) -> None:
        """Write a small file atomically: a reader finds the old content or the new, never a part.

        Raises:
            OSError: the location rejects the file, after all retries.
        """
        if isinstance(self._location, Path):
            replace_file(self._location / name, content)
        else:
            self._location.put(name, content)

    def create_file(self, name: str, content: bytes) -> None:
        """Write a small file unless it exists.

        Raises:
            FileExistsError: it exists.
            OSError: the location rejects the file, after all retries.
        """
        if isinstance(self._location, Path):
            self._location.mkdir(parents=True, exist_ok=True)
            with full_disk_names(self._location / name), (self._location / name).open("xb") as file:
                file.write(content)
        else:
            self._location.create(name, content)

    def get_file(self, name: str) -> bytes | None:
        """Return the content of a small file; None if it does not exist.

        Raises:
            OSError: the location cannot be read, after all retries.
        """
        try:
            return (
                (self._location / name).read_bytes() if isinstance(self._location, Path) else self._location.read(name)
            )
        except FileNotFoundError:
            return None

    def remove_file(self, name: str) -> None:
        """Remove a small file, if it exists."""
        if isinstance(self._location, Path):
            (self._location / name).unlink(missing_ok=True)
        else:
            self._location.remove_file(name)


def _local_folder(location: str) -> Path | None:
    folder = local_folder(location)
    if folder and not folder.is_absolute():
        raise Refusal(
            f"{location} is a relative path, and workers on other nodes run in other folders", "write it out from /"
        )
    return folder


def _description_last(path: Path) -> tuple[bool, str]:
    """Return the key that sorts checkpoint.json after all other files."""
    return path.name == DESCRIPTION_NAME, path.name
