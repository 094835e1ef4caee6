"""Archive of the code of a submitted job: this project's packages, and small files that the job's arguments name."""

import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.git import checkout_around, git_state, is_tracked, listed_files, running_folder

PACKAGES = ("captioning", "cluster", "jobs", "shards")
INPUT_LIMIT_MIB = 1
_LIMIT_MIB = 100  # Ray's limit; Ray reports a larger archive as a broken connection (ray#38566)
_NUM_NAMED = 3
_MIB = 2**20
# The earliest time that zip can store. With a fixed time, the same files give the same archive, which Ray uploads once.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceArchive:
    """Plan of the archive with a job's code; nothing is written yet."""

    folder: Path
    """Folder of the code on this machine."""
    files: tuple[tuple[str, Path], ...]
    """For each file, its name in the archive and its path on this machine."""
    left_out: tuple[str, ...]
    """Groups of files that are not sent, and why; one line each."""
    commit: str
    """Commit of the checkout, or ``unknown``."""
    is_dirty: str
    """Whether the checkout has uncommitted changes: ``true``, ``false`` or ``unknown``."""


def plan_archive(folder: Path | None = None, *, inputs: Sequence[Path] = ()) -> SourceArchive:
    """Select the files to send: the packages' files that git tracks, as they are on disk, and the inputs.

    Without a checkout, all files of the packages are sent, except caches.

    Args:
        folder: folder of the code; by default the checkout around the current folder if it has the packages, otherwise
            the folder that this process runs them from, such as a checkout elsewhere or ``site-packages``.
        inputs: files that the job's arguments name, relative to the current folder.

    Raises:
        FileNotFoundError: the folder lacks the packages.
        ValueError: an input has the same name as a file of the code.
    """
    folder = (folder or _default_folder()).absolute()
    if missing := _missing_packages(folder):
        raise FileNotFoundError(
            f"{folder} has no code to run: it lacks {', '.join(missing)}; "
            f"use --working-dir with a checkout of captioning, such as {running_folder()}"
        )
    names, left_out = _tracked(folder) if is_tracked(folder) else _walked(folder)
    # A link may name any file of this machine. Of installed packages, all files may be links to the installer's cache.
    if outside := [name for name in names if not _is_in(folder / name, folder)] if folder != running_folder() else []:
        names = [name for name in names if name not in outside]
        left_out.append(f"{_counted(len(outside))} that links out of the folder: {_named(outside)}")
    files = {name: folder / name for name in names}
    for path in inputs:
        if path.as_posix() in files and not path.samefile(files[path.as_posix()]):
            raise ValueError(f"input {path} has the same name as a file of the code; rename it")
        files[path.as_posix()] = path.absolute()
    state = git_state(folder)
    return SourceArchive(
        folder=folder,
        files=tuple(sorted(files.items())),
        left_out=tuple(left_out),
        commit=state["mlflow.source.git.commit"],
        is_dirty=state["git.dirty"],
    )


def write_archive(archive: SourceArchive, path: Path, *, limit_mib: float = _LIMIT_MIB) -> int:
    """Write the archive as a zip file; return its size in bytes.

    Raises:
        ValueError: the archive is larger than Ray accepts.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, file in archive.files:
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            target.writestr(entry, file.read_bytes())
        entries = target.infolist()
    num_bytes = path.stat().st_size
    if num_bytes >= limit_mib * _MIB:
        largest = sorted(entries, key=lambda entry: -entry.compress_size)[:_NUM_NAMED]
        named = ", ".join(f"{entry.filename} {entry.compress_size / _MIB:.1f} MiB" for entry in largest)
        raise ValueError(
            f"the code in {archive.folder} is {num_bytes / _MIB:.1f} MiB zipped, and Ray accepts less than "
            f"{limit_mib:g} MiB; move the largest files out of the packages: {named}"
        )
    return num_bytes


def archive_size(archive: SourceArchive) -> int:
    """Return the size of the zipped archive, in bytes.

    Raises:
        ValueError: the archive is larger than Ray accepts.
    """
    with tempfile.TemporaryDirectory(prefix="captioning-") as scratch:
        return write_archive(archive, Path(scratch) / "code.zip")


def _default_folder() -> Path:
    checkout = checkout_around(Path.cwd()) or Path.cwd()
    return running_folder() if _missing_packages(checkout) else checkout


def _missing_packages(folder: Path) -> list[str]:
    return [name for name in PACKAGES if not (folder / name / "__init__.py").is_file()]


def _tracked(folder: Path) -> tuple[list[str], list[str]]:
    """Return the tracked files of the packages, and texts on what is left out."""
    tracked, untracked = listed_files(folder), listed_files(folder, "--others", "--exclude-standard")
    names = [name for name in tracked if _is_ours(name) and (folder / name).is_file()]
    new = [name for name in untracked if _is_ours(name)]
    num_others = sum(not _is_ours(name) for name in tracked)
    left_out = [f"{_counted(num_others)} outside {', '.join(PACKAGES)}"] if num_others else []
    if new:
        left_out.append(f"{_counted(len(new))} that git does not track: {_named(new)}")
    return names, left_out


def _walked(folder: Path) -> tuple[list[str], list[str]]:
    """Return all files of the packages but caches and hidden files, and texts on what is left out."""
    found = [path.relative_to(folder) for package in PACKAGES for path in sorted((folder / package).rglob("*"))]
    files = [path for path in found if (folder / path).is_file()]
    kept = [path for path in files if not any(part == "__pycache__" or part.startswith(".") for part in path.parts)]
    left_out = [f"{_counted(len(files) - len(kept))} in caches or hidden"]
    return [path.as_posix() for path in kept], left_out if len(kept) < len(files) else []


def _is_in(file: Path, folder: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())


def _is_ours(name: str) -> bool:
    return name.split("/")[0] in PACKAGES


def _counted(number: int) -> str:
    return f"{number} file{'s' if number != 1 else ''}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return f"{', '.join(names[:_NUM_NAMED])}{more}"
