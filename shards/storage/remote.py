"""A folder at a URL that fsspec reaches, used from several processes.

Options and credentials come from the environment and fsspec's own configuration files. An object store has no folders
and no rename: a file appears in one put, whole or not at all. Elsewhere (sftp) it may be seen half written.
"""

import contextlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from shards.storage.location import without_credentials

logger = logging.getLogger(__name__)

_WAITS_SECONDS = (1.0, 2.0, 4.0)
_LONGEST_REASON = 300
_Result = TypeVar("_Result")


class RemoteFolder:
    """A folder at a URL: a request that fails is tried again, then raised in one line; may be pickled.

    Every method raises FileNotFoundError or PermissionError at once, and ConnectionError after the last attempt.

    Args:
        url: the URL of the folder, which need not exist.
        sleep: function that waits so many seconds before another attempt.

    Raises:
        ValueError: nothing installed here reaches the URL.
    """

    def __init__(self, url: str, sleep: Callable[[float], None]) -> None:
        self._url, self._sleep = url, sleep
        self._opened: tuple[int, Any, str] | None = None
        import fsspec  # a fifth of a second that --help should not cost

        try:
            fsspec.get_filesystem_class(url.partition("://")[0])
            # Imports what fsspec leaves to the first call: a process forked while a thread imports never ends that.
            fsspec.url_to_fs("file:///")
        except (ValueError, ImportError) as error:
            raise ValueError(
                f"{self} is out of reach ({error}); install what its scheme needs on every node, or use a folder"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave connections out: they belong to a process."""
        return RemoteFolder, (self._url, self._sleep)

    def __str__(self) -> str:
        """Return the URL, without credentials."""
        return without_credentials(self._url).rstrip("/")

    def list_entries(self, name: str = "") -> dict[str, bool]:
        """Return what is in the folder, or in one in it: names, and whether each is a folder; nothing if it is not."""
        found = {entry["name"]: entry["type"] == "directory" for entry in self._entries(name)}
        # An empty object whose name ends in a slash is how some consoles show a folder.
        return {
            path.rstrip("/").rpartition("/")[2]: is_folder
            for path, is_folder in found.items()
            if is_folder or not path.endswith("/")
        }

    def sizes(self, name: str = "") -> dict[str, int]:
        """Return the files in the folder, or in one in it, and their sizes in bytes; nothing if it is not there."""
        files = [entry for entry in self._entries(name) if entry["type"] == "file"]
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in files}

    def _entries(self, name: str = "") -> list[dict[str, Any]]:
        try:
            return self._try(lambda system, root: system.ls(f"{root}/{name}".rstrip("/"), detail=True))
        except FileNotFoundError:
            return []

    def put(self, name: str, content: Path | bytes) -> None:
        """Put one file: bytes, or a copy of a local file."""

        def put(system: Any, root: str) -> None:  # noqa: ANN401  fsspec's classes have no types
            path = f"{root}/{name}"
            if not system.async_impl:  # object stores are; they need no folders, and s3fs would make the bucket, too
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
            if isinstance(content, bytes):
                system.pipe_file(path, content)
            else:
                system.put_file(str(content), path)

        self._try(put)

    def get(self, name: str, path: Path) -> None:
        """Copy one file to ``path``."""
        self._try(lambda system, root: system.get_file(f"{root}/{name}", str(path)))

    def read(self, name: str) -> bytes:
        """Return what is in a file."""
        return self._try(lambda system, root: system.cat_file(f"{root}/{name}"))

    def remove_file(self, name: str) -> None:
        """Remove a file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._try(lambda system, root: system.rm_file(f"{root}/{name}"))

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._try(lambda system, root: system.rm(f"{root}/{name}", recursive=True))

    def _try(self, action: Callable[[Any, str], _Result]) -> _Result:
        """Do something with the filesystem and the folder's path in it, again after a failure that may pass."""
        waits = iter(_WAITS_SECONDS)
        while True:
            try:
                return action(*self._open())
            except (FileNotFoundError, PermissionError) as error:
                kind = FileNotFoundError if isinstance(error, FileNotFoundError) else PermissionError
                raise kind(f"{self}: {self._reason(error)}; check the address and the credentials") from None
            except Exception as error:  # every filesystem raises what its own library does
                wait, reason = next(waits, None), self._reason(error)
                if wait is None:
                    raise ConnectionError(
                        f"{self} failed {len(_WAITS_SECONDS) + 1} times, at last with {reason}; "
                        "check the address, the network and the credentials"
                    ) from None
            logger.warning("%s: %s; trying again in %g s", self, reason, wait)
            self._sleep(wait)

    def _open(self) -> tuple[Any, str]:
        """Return the filesystem and the folder's path in it; a forked process needs connections of its own."""
        if self._opened is None or self._opened[0] != os.getpid():
            import fsspec

            self._opened = (os.getpid(), *fsspec.url_to_fs(self._url, skip_instance_cache=True))
        _, system, path = self._opened
        system.invalidate_cache()  # of listings: others write there, too
        return system, path.rstrip("/")

    def _reason(self, error: Exception) -> str:
        """Return an error in one line, without the credentials that the URL may have."""
        text = re.sub(r"//[^/\s]*@", "//", " ".join(f"{type(error).__name__}: {error}".split()))
        if found := re.search("//(.*)@", self._url):
            password = found[1].partition(":")[2]
            for secret in filter(None, (found[1], password, unquote(password))):
                text = text.replace(secret, "***")
        return text[:_LONGEST_REASON]
