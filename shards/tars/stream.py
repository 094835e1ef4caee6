"""Tars as streams: each file of a tar once and in order, with the checksum of what was read, and no copy."""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from shards.storage.folders import RemoteShards, ShardFolder, open_folder

_BLOCK = 2**20
_SMALL_BLOCK = 2**14  # tarfile copies the rest of a block at every read
_LARGEST_TEXT = 16 * 2**20  # bytes of a sample's captions, so that a damaged size does not fill the memory
_END_OF_TAR = bytes(512)
_MOST_EMPTY = 1000  # reads after the end of a file
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
T = TypeVar("T")


class TarError(ValueError):
    """A file that is no whole, uncompressed tar; the message says why."""


class Member(NamedTuple):
    """A file in a tar; ``read`` returns its content, before the next file is asked for."""

    name: str
    num_bytes: int
    read: Callable[[], bytes]


class HashedFile:
    """A file that is read once; hashes what is read.

    Attributes:
        sha256: hash of the bytes read so far, which may be some more than were asked for.
        num_bytes: number of these bytes.
        head: first bytes of the file.
        tail: last bytes read, at most 512.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256, self.num_bytes, self.head, self.tail = hashlib.sha256(), 0, b"", b""
        self._block, self._at, self._num_empty = memoryview(b""), 0, 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; empty at the end."""
        if self._at == len(self._block):
            self._block, self._at = memoryview(self._next_block()), 0
            self._num_empty += not self._block
            if self._num_empty > _MOST_EMPTY:  # tarfile reads on to where a size in a header says that the next file is
                raise EOFError("a file in it is longer than the rest of it")
        content = bytes(self._block[self._at : self._at + size])
        self._at += len(content)
        return content

    def _next_block(self) -> bytes:
        content = self._file.read(_BLOCK)
        self.sha256.update(content)
        self.num_bytes += len(content)
        self.head = self.head or content[:8]
        self.tail = (self.tail + content[-len(_END_OF_TAR) :])[-len(_END_OF_TAR) :]
        return content


def with_tar(location: str, action: Callable[[HashedFile], T]) -> T:
    """Open a tar and return what ``action`` returns; at a URL, it is called again after a failure of the connection.

    Raises:
        TarError: ``action`` raised it.
        OSError: the tar cannot be read, even after retries.
    """

    def call(file: BinaryIO) -> T | TarError:
        try:
            return action(HashedFile(file))
        except TarError as error:  # returned, because another try would not mend it
            return error

    folder, name = _folder_of(location)
    if isinstance(folder, RemoteShards):
        found = folder.stream(name, call)
    else:
        with (folder / name).open("rb") as file:
            found = call(file)
    if isinstance(found, TarError):
        raise found
    return found


def stamp_of(location: str) -> str:
    """Return a text that changes when a tar does: its size and time, or the server's tag.

    Raises:
        OSError: the tar cannot be accessed.
    """
    folder, name = _folder_of(location)
    if isinstance(folder, RemoteShards):
        return folder.stamp_of(name)
    status = (folder / name).stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def read_members(file: HashedFile) -> Iterator[Member]:
    """Yield the files of a tar in order, then read the file to its end.

    Raises:
        TarError: it is no tar, is compressed, was cut off, or goes on after its end.
    """
    try:
        with tarfile.open(fileobj=file, mode="r|", bufsize=_SMALL_BLOCK) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
            for member in tar:
                tar.members = []  # tarfile keeps them all
                if member.isfile():
                    yield Member(member.name, member.size, lambda member=member: _content(tar, member))
            stream: Any = tar.fileobj
            while rest := stream.read(_BLOCK):
                if rest.strip(b"\0"):
                    raise TarError("it goes on after the end of a tar, as tars joined by cat do; use them as they were")
    except (tarfile.TarError, EOFError) as error:
        raise TarError(_why_no_tar(file, error)) from None
    while file.read(_BLOCK):
        pass
    if file.tail != _END_OF_TAR:
        raise TarError("it lacks the end of a tar, so it was cut off; fetch it again")


def _folder_of(location: str) -> tuple[ShardFolder, str]:
    place, _, name = location.rpartition("/")
    folder = open_folder(place or "/")
    return folder if isinstance(folder, RemoteShards) else Path(folder), name


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _LARGEST_TEXT:
        raise ValueError(f"it has a text of {member.size} bytes")
    try:
        extracted = tar.extractfile(member)
        return extracted.read() if extracted else b""
    except tarfile.TarError:
        return b""  # the next member's header, which is not there either, tells it


def _why_no_tar(file: HashedFile, error: Exception) -> str:
    if file.head.startswith(_COMPRESSED):
        return "it is compressed, and a sample in the middle cannot be read alone; decompress it"
    if not file.head:
        return "it is empty; fetch it again"
    return f"it is no whole tar ({' '.join(str(error).split())}); fetch it again"
