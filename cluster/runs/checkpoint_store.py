"""Store of a run's checkpoints: a folder that every node sees, or any URL that fsspec reaches (s3://, gs://)."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from captioning.training.checkpoint_description import DESCRIPTION_NAME
from cluster.errors import Refusal
from shards.storage.files import replace_file
from shards.storage.location import local_folder
from shards.storage.remote import RemoteFolder


class CheckpointStore:
    """A location of checkpoints and small files; may be pickled, and used in any process and thread.

    Args:
        location: absolute path of a folder, or a URL.
        sleep: waits that many seconds before another attempt.

    Raises:
        Refusal: the path is relative.
        ValueError: nothing installed here reaches the URL.
    """

    def __init__(self, location: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        folder = _local_folder(location)
        self._location = folder or RemoteFolder(location, sleep)

    @property
    def is_local(self) -> bool:
        """Return whether checkpoints are in a folder that may be read and written directly."""
        return isinstance(self._location, Path)

    def __str__(self) -> str:
        """Name the location, without credentials."""
        return str(self._location)

    def write(self, name: str, write: Callable[[Path], None]) -> None:
        """Make a checkpoint of what ``write`` puts into a new folder.

        A remote location gets checkpoint.json last: a process that is killed before leaves no checkpoint, though it may
        leave some of its files, and its own temporary folder.

        Args:
            name: name of the checkpoint.
            write: makes the folder that it is given and fills it, checkpoint.json last.

        Raises:
            FileExistsError: the name is taken.
            OSError: the location does not take it, however often it was tried.
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
        """Return a local folder with a checkpoint; that its files are whole is for the caller to check.

        Args:
            name: name of the checkpoint.
            into: folder for this process alone; a remote checkpoint is copied to ``into / name``.

        Raises:
            FileNotFoundError: a remote location has no such checkpoint.
            OSError: the location does not give it, however often it was tried.
        """
        location = self._location
        if isinstance(location, Path):
            return location / name
        names = [Path(entry) for entry, is_folder in location.list_entries(name).items() if not is_folder]
        if Path(DESCRIPTION_NAME) not in names:
            raise FileNotFoundError(
                f"{location}/{name} is no checkpoint: it has no {DESCRIPTION_NAME}; use another one"
            )
        folder = into / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in sorted(names, key=_description_last):
            location.get(f"{name}/{path.name}", folder / path.name)
        return folder

    def names(self) -> list[str]:
        """Return the names of all folders in the location, sorted, whether or not they are whole checkpoints."""
        if isinstance(self._location, Path):
            if not self._location.is_dir():
                return []
            return sorted(path.name for path in self._location.iterdir() if path.is_dir())
        return sorted(name for name, is_folder in self._location.list_entries().items() if is_folder)

    def remove(self, name: str) -> None:
        """Remove a checkpoint, whole or not, its checkpoint.json first; nothing happens if there is none.

        A file that a process still writes may stay behind; removing the checkpoint again removes it.

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
        """Write a small file: whoever reads it finds the old content or the new, never a part.

        Raises:
            OSError: the location does not take it, however often it was tried.
        """
        if isinstance(self._location, Path):
            replace_file(self._location / name, content)
        else:
            self._location.put(name, content)

    def get_file(self, name: str) -> bytes | None:
        """Read a small file; None if there is none.

        Raises:
            OSError: the location does not give it, however often it was tried.
        """
        try:
            return (
                (self._location / name).read_bytes() if isinstance(self._location, Path) else self._location.read(name)
            )
        except FileNotFoundError:
            return None

    def remove_file(self, name: str) -> None:
        """Remove a small file, if there is one."""
        if isinstance(self._location, Path):
            (self._location / name).unlink(missing_ok=True)
        else:
            self._location.remove_file(name)


def _local_folder(location: str) -> Path | None:
    folder = local_folder(location)
    if folder and not folder.is_absolute():
        raise Refusal(f"{location} is no absolute path", "other nodes run in other folders: write it out from /")
    return folder


def _description_last(path: Path) -> tuple[bool, str]:
    return path.name == DESCRIPTION_NAME, path.name
