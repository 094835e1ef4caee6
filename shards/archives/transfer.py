"""Download of one file over HTTP: resumed after a failure, checked, and renamed into place when complete.

``NAME.part`` is an unfinished transfer of ``NAME``, and ``NAME.part.tag`` the version of the server's file (its ETag or
Last-Modified) that the bytes belong to.
"""

import hashlib
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO, Literal

from shards.storage.files import full_disk_names, sync_folder

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
MAX_FAILURES = 6
_CHUNK_BYTES = 2**20
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)  # may be temporary, so worth a retry


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Progress of one step, in bytes; ``name`` is the file, or the part that is unpacked."""

    name: str
    step: Literal["fetch", "check", "unpack"]
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file on a server, with its expected size and md5 (32 hexadecimal digits)."""

    url: str
    num_bytes: int
    md5: str


class TransferBrokeError(Exception):
    """A network failure that a retry may fix."""


def fetch(
    remote: RemoteFile, path: Path, *, progress: Callable[[Progress], None], sleep: Callable[[float], None]
) -> None:
    """Download a file to ``path``; resume an unfinished transfer if the server still has the same version.

    Args:
        remote: file to download.
        path: target file, which must not exist; its folder is created.
        progress: callback, called for every chunk.
        sleep: function that waits the given number of seconds before a retry.

    Raises:
        RuntimeError: the server refuses, has a different file, or fails ``MAX_FAILURES`` times in a row without sending
            a new byte.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, failures = part_path(path), 0
    furthest = _size(part)
    while _size(part) < remote.num_bytes:
        try:
            _transfer(remote, path, progress)
        except TransferBrokeError as broke:
            here = _size(part)
            # Only failures without progress add up: a slow connection may break any number of times.
            failures = 1 if here > furthest else failures + 1
            furthest = max(furthest, here)
            if failures == MAX_FAILURES:
                raise RuntimeError(
                    f"{remote.url} failed {failures} times in a row, the last time with: {broke}; {here:,} of "
                    f"{remote.num_bytes:,} bytes are kept: check the network and run again to resume"
                ) from broke
            logger.warning("%s: %s at byte %s of %s; retrying", remote.url, broke, here, remote.num_bytes)
            sleep(min(60.0, 2.0**failures))
    try:
        check(part, remote, progress=progress, remedy="it was deleted: run again, or choose another base URL")
    except ValueError as damage:
        part.unlink()
        raise RuntimeError(str(damage)) from damage
    part.replace(path)  # only after the check, so that a file with its final name is complete
    _tag_path(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def check(path: Path, remote: RemoteFile, *, progress: Callable[[Progress], None], remedy: str) -> None:
    """Compare a file's md5 with the expected one.

    Raises:
        ValueError: they differ; the message ends in ``remedy``.
    """
    digest, done_bytes = hashlib.md5(usedforsecurity=False), 0
    name = path.name.removesuffix(".part")
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done_bytes += len(chunk)
            progress(Progress(name=name, step="check", done_bytes=done_bytes, total_bytes=remote.num_bytes))
    if digest.hexdigest() != remote.md5:
        raise ValueError(
            f"{path} has {done_bytes:,} bytes with md5 {digest.hexdigest()}, not {remote.num_bytes:,} with "
            f"{remote.md5}, so it is damaged or a different file; {remedy}"
        )


def part_path(path: Path) -> Path:
    """Return the path of the unfinished transfer of a file."""
    return path.with_name(path.name + ".part")


def _tag_path(path: Path) -> Path:
    return path.with_name(path.name + ".part.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(remote: RemoteFile, path: Path, progress: Callable[[Progress], None]) -> None:
    part, tag_path = part_path(path), _tag_path(path)
    tag = tag_path.read_text() if tag_path.exists() else ""
    start = _size(part) if tag else 0
    with _open(remote.url, {"Range": f"bytes={start}-", "If-Range": tag} if start else {}) as response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            _refuse_other_length(remote, response.headers)
            start = 0
        elif not _continues(response.headers, tag, expected=f"bytes {start}-{remote.num_bytes - 1}/{remote.num_bytes}"):
            part.unlink(missing_ok=True)
            raise TransferBrokeError("the server sent another range or version than requested")
        with full_disk_names(part), part.open("ab" if start else "wb") as file:
            if not start:  # only now that the part is empty: bytes of an old version must never carry a new tag
                tag_path.write_text(_tag(response.headers))
            for done_bytes in _append(response, file, start=start, stop=remote.num_bytes):
                progress(Progress(name=path.name, step="fetch", done_bytes=done_bytes, total_bytes=remote.num_bytes))
            file.flush()
            os.fsync(file.fileno())


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _PASSING_STATUS:
            raise TransferBrokeError(f"{error.code} {error.reason}") from error
        raise RuntimeError(
            f"{url} answered {error.code} {error.reason}; check the base URL, or choose another"
        ) from error
    except (OSError, HTTPException) as error:
        raise TransferBrokeError(str(error) or type(error).__name__) from error


def _refuse_other_length(remote: RemoteFile, headers: Message) -> None:
    length = headers["Content-Length"]
    if length not in (None, str(remote.num_bytes)):
        raise RuntimeError(
            f"{remote.url} has {length} bytes instead of {remote.num_bytes}, so it is a different file or a login "
            "page; check the network and the base URL"
        )


def _continues(headers: Message, tag: str, *, expected: str) -> bool:
    return headers["Content-Range"] == expected and _tag(headers) in ("", tag)


def _tag(headers: Message) -> str:
    """Return the file's version for If-Range, which does not allow weak ETags (RFC 9110, section 13.1.5)."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _append(response: HTTPResponse, file: BinaryIO, *, start: int, stop: int) -> Iterator[int]:
    """Copy the body to the file; yield the file's size in bytes after every chunk."""
    while start < stop:
        try:
            chunk = response.read1(min(_CHUNK_BYTES, stop - start))
        except (OSError, HTTPException) as error:
            raise TransferBrokeError(str(error) or type(error).__name__) from error
        if not chunk:
            raise TransferBrokeError("the connection was closed")
        file.write(chunk)
        start += len(chunk)
        yield start
