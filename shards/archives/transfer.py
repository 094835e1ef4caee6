"""One file over HTTP: resumed where it broke off, checked, whole or absent.

``NAME.part`` is a broken transfer of ``NAME``, and ``NAME.part.tag`` tells which version of the server's file it is of.
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

from shards.storage.files import sync_folder

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
MAX_FAILURES = 6
_CHUNK_BYTES = 2**20
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far one step has come, in bytes; ``name`` is that of the file, or of what is unpacked."""

    name: str
    step: Literal["fetch", "check", "unpack"]
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file on a server and what it must be; ``md5`` is 32 hexadecimal digits."""

    url: str
    num_bytes: int
    md5: str


class TransferBrokeError(Exception):
    """The network failed in a way that another attempt may mend."""


def fetch(
    remote: RemoteFile, path: Path, *, progress: Callable[[Progress], None], sleep: Callable[[float], None]
) -> None:
    """Bring a file to ``path``, going on from an earlier broken transfer if the server still has the same version.

    Args:
        remote: what to fetch.
        path: absent; its folder is created.
        progress: called for every chunk.
        sleep: waits that many seconds before another attempt.

    Raises:
        RuntimeError: the server refuses, has another file, or failed ``MAX_FAILURES`` times without a new byte between.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, failures = part_path(path), 0
    furthest = _size(part)
    while _size(part) < remote.num_bytes:
        try:
            _transfer(remote, path, progress)
        except TransferBrokeError as broke:
            here = _size(part)
            failures = 1 if here > furthest else failures + 1
            furthest = max(furthest, here)
            if failures == MAX_FAILURES:
                raise RuntimeError(
                    f"{remote.url} failed {failures} times in a row, at last with: {broke}; {here:,} of "
                    f"{remote.num_bytes:,} bytes are kept: check the network and run again to go on"
                ) from broke
            logger.warning("%s: %s at byte %s of %s; trying again", remote.url, broke, here, remote.num_bytes)
            sleep(min(60.0, 2.0**failures))
    try:
        check(part, remote, progress=progress, remedy="it is deleted: run again, or choose another base URL")
    except ValueError as damage:
        part.unlink()
        raise RuntimeError(str(damage)) from damage
    part.replace(path)
    _tag_path(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def check(path: Path, remote: RemoteFile, *, progress: Callable[[Progress], None], remedy: str) -> None:
    """Compare a file with the md5 that it must have.

    Raises:
        ValueError: it has another; the message ends in ``remedy``.
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
            f"{remote.md5}, so it is damaged or another file; {remedy}"
        )


def part_path(path: Path) -> Path:
    """Return where the broken transfer of a file lies."""
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
            raise TransferBrokeError("another range or version came than was asked for, so the transfer starts anew")
        with part.open("ab" if start else "wb") as file:
            if not start:  # only now that the part is empty: old bytes must never lie under a new tag
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
            f"{remote.url} offers {length} bytes instead of {remote.num_bytes}, so it is another file or a login page; "
            "check the network and the base URL"
        )


def _continues(headers: Message, tag: str, *, expected: str) -> bool:
    return headers["Content-Range"] == expected and _tag(headers) in ("", tag)


def _tag(headers: Message) -> str:
    """Return what names this version of the file in If-Range; weak tags do not count (RFC 9110, section 13.1.5)."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _append(response: HTTPResponse, file: BinaryIO, *, start: int, stop: int) -> Iterator[int]:
    """Copy the body to the file and yield the file's size after every chunk."""
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
