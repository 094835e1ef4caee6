"""Extraction of parts of a zip file: nothing is written outside the folder, and a kill loses at most one file."""

import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.archives.transfer import Progress
from shards.storage.files import full_disk_names, replace_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """An archive's content for one split: a folder of JPEGs or a caption file, at ``target`` in archive and folder."""

    split: str
    target: str
    num_bytes: int
    """Unpacked size in bytes, only used to check the disk: exact for captions, 2 % above the archive's for images."""


def is_unpacked(part: Part, folder: Path) -> bool:
    """Return whether an earlier run finished the part and it is still there."""
    return _mark_path(part, folder).exists() and (folder / part.target).exists()


def unpack_parts(path: Path, parts: Sequence[Part], *, folder: Path, progress: Callable[[Progress], None]) -> None:
    """Unpack parts of the zip file at ``path``; files that exist with the same bytes are kept.

    Raises:
        ValueError: a member of the archive, or a link in the folder, points outside the folder.
        RuntimeError: the archive is damaged, or lacks a part.
    """
    try:
        with zipfile.ZipFile(path) as source:
            for member in source.infolist():  # all members, before the first is written
                _refuse_unsafe(path, member)
            for part in parts:
                _unpack_part(source, part, folder=folder, progress=progress)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise RuntimeError(f"{path} is damaged ({error}); delete it and run again") from error


def _mark_path(part: Part, folder: Path) -> Path:
    return folder / ".downloaded" / f"{Path(part.target).stem}.json"


def _refuse_unsafe(path: Path, member: zipfile.ZipInfo) -> None:
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    if not is_plain or name.startswith("/") or ".." in name.split("/") or re.search(r"[\\:\x00-\x1f\x7f]", name):
        raise ValueError(
            f"{path} contains {name!r}, a link or an unsafe path, so nothing was unpacked; "
            "delete the archive and download it from a server that you trust"
        )


def _unpack_part(source: zipfile.ZipFile, part: Part, *, folder: Path, progress: Callable[[Progress], None]) -> None:
    if not (folder / part.target).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder / part.target} is a link that points outside {folder}; replace it with a folder")
    members = _members(source, part)
    done_bytes, total_bytes = 0, sum(member.file_size for member in members)
    (folder / members[0].filename).parent.mkdir(parents=True, exist_ok=True)
    for member in members:
        _unpack(source, member, folder / member.filename)
        done_bytes += member.file_size
        progress(Progress(name=part.target, step="unpack", done_bytes=done_bytes, total_bytes=total_bytes))
    os.sync()  # once: one sync per file would take longer than unpacking 118,287 images
    record = {"target": part.target, "num_files": len(members), "num_bytes": total_bytes}
    replace_file(_mark_path(part, folder), json.dumps(record).encode())


def _members(source: zipfile.ZipFile, part: Part) -> list[zipfile.ZipInfo]:
    pattern = re.escape(part.target) + ("" if part.target.endswith(".json") else r"/\w[\w-]*\.jpg")
    members = [member for member in source.infolist() if re.fullmatch(pattern, member.filename, re.ASCII)]
    if not members:
        raise RuntimeError(
            f"{source.filename} does not contain {part.target}, so it is a different archive; delete it and run again"
        )
    return members


def _unpack(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one file, complete or not at all; skip it if an earlier run wrote the same bytes."""
    if target.exists() and zlib.crc32(target.read_bytes()) == member.CRC:
        return
    beside = target.with_name(target.name + ".part")
    with full_disk_names(target), source.open(member) as packed, beside.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    beside.replace(target)
