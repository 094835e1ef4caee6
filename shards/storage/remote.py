"""A folder at a URL, accessed through fsspec with retries, from one or several processes.

Options and credentials come from the environment and fsspec's own configuration files. An object store has no folders
and no rename; a file appears in one put, complete or not at all. Elsewhere (sftp) a reader may see a partial file.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from shards.storage.location import refuse_credentials, without_credentials

logger = logging.getLogger(__name__)

_WAITS_SECONDS = (1.0, 2.0, 4.0)
_LONGEST_REASON = 300
UNKNOWN_SIZE = -1
_STREAM_BLOCK = 16 * 2**20
_STAMP_FIELDS = ("size", "ETag", "etag", "mtime", "LastModified", "Last-Modified", "last_modified", "updated")
_NOT_FOUND, _FORBIDDEN = (404, 410), (401, 403, 407)
_Result = TypeVar("_Result")


class RemoteFolder:
    """A folder at a URL. A failed request is retried, then raised as an error of one line. Can be pickled.

    Every method raises FileNotFoundError, FileExistsError or PermissionError at once, and ConnectionError after the
    last retry.

    Args:
        url: URL of the folder, which need not exist.
        sleep: function that waits the given number of seconds before a retry.

    Raises:
        ValueError: the URL contains credentials, or no installed package can open it.
    """

    def __init__(self, url: str, sleep: Callable[[float], None]) -> None:
        refuse_credentials(url, "the address")
        self._url, self._sleep = url, sleep
        self._opened: tuple[int, Any, str] | None = None
        import fsspec  # takes a fifth of a second, which --help should not cost

        try:
            fsspec.get_filesystem_class(url.partition("://")[0])
            # Triggers fsspec's lazy imports: a process forked while a thread imports would wait for the import forever.
            fsspec.url_to_fs("file:///")
        except (ValueError, ImportError) as error:
            raise ValueError(
                f"{self} cannot be opened ({error}); install the package for its scheme on every node, or use a folder"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without connections, which belong to one process."""
        return RemoteFolder, (self._url, self._sleep)

    def __str__(self) -> str:
        """Return the URL."""
        return self._url.rstrip("/")

    def list_entries(self, name: str = "") -> dict[str, bool]:
        """Return the names in the folder or a subfolder, and whether each is a folder; empty if it does not exist."""
        found = {entry["name"]: entry["type"] == "directory" for entry in self._entries(name)}
        # Some consoles represent a folder by an empty object with a name that ends in a slash.
        return {
            path.rstrip("/").rpartition("/")[2]: is_folder
            for path, is_folder in found.items()
            if is_folder or not path.endswith("/")
        }

    def sizes(self, name: str = "") -> dict[str, int]:
        """Return the size in bytes of each file in the folder or a subfolder; empty if it does not exist."""
        files = [entry for entry in self._entries(name) if entry["type"] == "file"]
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in files}

    def _entries(self, name: str = "") -> list[dict[str, Any]]:
        try:
            return self._try(lambda system, root: system.ls(f"{root}/{name}".rstrip("/"), detail=True))
        except FileNotFoundError:
            return []

    def find(self, pattern: str) -> list[str]:
        """Return the URLs of the files below the folder, at any depth, or of those that match a pattern; sorted."""

        def find(system: Any, root: str) -> list[str]:  # noqa: ANN401  fsspec's classes have no types
            found = system.glob(f"{root}/{pattern}") if pattern else system.find(root)
            return sorted(str(system.unstrip_protocol(path)) for path in found)

        return self._try(find)

    def size_of(self, name: str) -> int | None:
        """Return the size of a file in bytes, ``UNKNOWN_SIZE`` if the server does not tell, None without the file."""
        try:
            size = self._try(lambda system, root: system.info(f"{root}/{name}")).get("size")
        except FileNotFoundError:
            return None
        return UNKNOWN_SIZE if size is None else size

    def stamp_of(self, name: str) -> str:
        """Return a text that changes when a file does: its size, and its time or the server's tag."""
        found = self._try(lambda system, root: system.info(f"{root}/{name}"))
        return " ".join(str(found[field]) for field in _STAMP_FIELDS if found.get(field) is not None)

    def stream(self, name: str, action: Callable[[BinaryIO], _Result]) -> _Result:
        """Open a file to read it once, without a copy, and return what ``action`` returns.

        Args:
            name: name of the file.
            action: function of the open file; after a failure it is called again, from the file's start, so it raises
                only what reading raises.
        """
        # Of a web server, which need not support ranges, the file comes in one answer; elsewhere in blocks.
        block_size = 0 if self._url.startswith(("http://", "https://")) else _STREAM_BLOCK

        def stream(system: Any, root: str) -> _Result:  # noqa: ANN401  as above
            with system.open(f"{root}/{name}", "rb", block_size=block_size) as file:
                return action(file)

        return self._try(stream)

    def put(self, name: str, content: Path | bytes) -> None:
        """Upload one file, from bytes or a local file."""

        def put(system: Any, root: str) -> None:  # noqa: ANN401  fsspec's classes have no types
            path = f"{root}/{name}"
            # Object stores are async; they need no folders, and s3fs would even create the bucket.
            if not system.async_impl:
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
            if isinstance(content, bytes):
                system.pipe_file(path, content)
            else:
                system.put_file(str(content), path)

        self._try(put)

    def create(self, name: str, content: bytes) -> None:
        """Upload one small file unless it exists; atomic on S3, Google's and Azure's stores, in memory and in folders.

        Raises:
            FileExistsError: it exists, perhaps because an earlier try of this call succeeded unnoticed.
        """

        def create(system: Any, root: str) -> None:  # noqa: ANN401  as above
            if not system.async_impl:
                system.makedirs(root, exist_ok=True)
            system.pipe_file(f"{root}/{name}", content, mode="create")

        self._try(create)

    def get(self, name: str, path: Path) -> None:
        """Copy one file to ``path``."""
        self._try(lambda system, root: system.get_file(f"{root}/{name}", str(path)))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return self._try(lambda system, root: system.cat_file(f"{root}/{name}"))

    def remove_file(self, name: str) -> None:
        """Remove a file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._try(lambda system, root: system.rm_file(f"{root}/{name}"))

    def remove_folder(self, name: str) -> None:
        """Remove a folder and its content, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._try(lambda system, root: system.rm(f"{root}/{name}", recursive=True))

    def _try(self, action: Callable[[Any, str], _Result]) -> _Result:
        """Call ``action`` with the filesystem and the folder's path in it; retry if the failure may be temporary."""
        waits = iter(_WAITS_SECONDS)
        while True:
            try:
                return action(*self._open())
            except FileExistsError as error:
                raise FileExistsError(f"{self}: {self._reason(error)}") from None
            except Exception as error:  # every filesystem raises what its own library does
                if kind := _kind_of(error):
                    raise kind(f"{self}: {self._reason(error)}; check the address and the credentials") from None
                wait, reason = next(waits, None), self._reason(error)
                if wait is None:
                    raise ConnectionError(
                        f"{self} failed {len(_WAITS_SECONDS) + 1} times, the last time with {reason}; "
                        "check the address, the network and the credentials"
                    ) from None
            logger.warning("%s: %s; retrying in %g s", self, reason, wait)
            self._sleep(wait)

    def _open(self) -> tuple[Any, str]:
        """Return the filesystem and the folder's path in it; a forked process opens new connections."""
        if self._opened is None or self._opened[0] != os.getpid():
            import fsspec

            self._opened = (os.getpid(), *fsspec.url_to_fs(self._url, skip_instance_cache=True))
        _, system, path = self._opened
        system.invalidate_cache()  # of listings: other processes write there as well
        return system, path.rstrip("/")

    def _reason(self, error: Exception) -> str:
        """Return an error as one line, without credentials that the library's text may contain."""
        answer = _answer_in(error)
        return without_credentials(" ".join(f"{type(answer).__name__}: {answer}".split()))[:_LONGEST_REASON]


def _answer_in(error: Exception) -> BaseException:
    """Return what a web server answered: fsspec calls its file missing whatever that was, and keeps it as the cause."""
    is_answer = isinstance(error, FileNotFoundError) and type(error.__cause__).__module__.startswith("aiohttp")
    return error.__cause__ if is_answer and error.__cause__ else error


def _kind_of(error: Exception) -> type[OSError] | None:
    """Return the kind of a failure that another try would not mend; None if it may be temporary."""
    answer = _answer_in(error)
    status = getattr(answer, "status", None)
    if isinstance(answer, PermissionError) or status in _FORBIDDEN:
        return PermissionError
    return FileNotFoundError if isinstance(answer, FileNotFoundError) or status in _NOT_FOUND else None
