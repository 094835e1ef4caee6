"""Image files of a source: where the names in its annotations are found, and why a name is not found."""

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_LARGEST_FILE = 2**30  # bytes; an image is read whole, and no camera's file is as large
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")
_WINDOWS_ROOT = re.compile(r"[A-Za-z]:[/\\]|\\\\")  # C:/ or C:\, or \\ of a share
_LONGEST_NAME = 255  # bytes of a file's name, without its folders, on Linux and macOS
_LONGEST_PATH = 4095  # bytes on Linux


class ImageFiles:
    """The folders that may hold a source's images.

    Args:
        folders: folders to search, in this order.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = {str(folder): folder for folder in folders}
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, names: Sequence[str]) -> Path | None:
        """Return the first file that has one of the names in one of the folders; None if there is none."""
        for name in filter(is_inside, names):
            for text, folder in self._folders.items():
                if _is_file(f"{text}/{name}"):  # a Path for each place that is tried would take twice the time
                    return folder / name
        return None

    def why_not_found(self, name: str) -> str:
        """Return why there is no file of a name, as a clause; names the file that was meant if it is known."""
        reason = f"is in none of {', '.join(self._folders)}"
        if not name.strip("./"):
            return "has no name of a file"
        if fault := _fault_of(name):
            return f"{reason}: the name {fault}"
        for folder in self._folders.values():
            path = folder / name
            if (num_bytes := len(os.fsencode(path))) > _LONGEST_PATH:
                return f"{reason}: its path has {num_bytes} bytes, and a file's has at most {_LONGEST_PATH}"
            if path.is_file():
                return f"has {path.stat().st_size} bytes, more than {_LARGEST_FILE}; shrink it first"
            if os.path.lexists(path):
                return f"{reason}, for {path} is {_kind_of(path)}; put the image in its place"
            if near := self._names_alike(path.parent).get(_alike(path.name)):
                how = "its Unicode form" if near.casefold() != path.name.casefold() else "upper and lower case"
                return f"{reason}, but {path.parent} holds {near}, which differs in {how}; rename one of them"
        return reason

    def _names_alike(self, folder: Path) -> dict[str, str]:
        """Return the names in a folder by the form in which names that look alike are equal."""
        if folder not in self._listed:
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            self._listed[folder] = {_alike(name): name for name in sorted(names)}
        return self._listed[folder]


def is_inside(name: str) -> bool:
    """Return whether a name is of a file below the folder of the images."""
    return not name.startswith("/") and (".." not in name or ".." not in name.split("/"))


def why_outside(name: str) -> str:
    """Return why a name is not of a file below the folder of the images, as a clause."""
    if name.startswith("/"):
        return "has an absolute path; give its name below the folder of the images"
    return "has a name that points outside its folder"


def _fault_of(name: str) -> str:
    """Return what is wrong with a name wherever it is looked for, as a clause; empty if nothing is."""
    if _URL.match(name):
        return "is a URL; download the images, and write the names of their files"
    if _WINDOWS_ROOT.match(name):
        return f"is an absolute path of Windows; write it below that folder, such as {PureWindowsPath(name).name}"
    if "\\" in name:
        return "has Windows' backslashes; write / instead"
    if (num_bytes := _longest_part(name)) > _LONGEST_NAME:
        return f"has {num_bytes} bytes, and a file's has at most {_LONGEST_NAME}"
    return ""


def _is_file(path: str) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116  of a text, for speed
    except ValueError:  # the name holds a zero byte
        return False
    except OSError as error:
        if error.errno not in _NO_SUCH_FILE:
            raise
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_FILE


def _longest_part(name: str) -> int:
    return max(len(part.encode(errors="replace")) for part in name.split("/"))


def _kind_of(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a link that leads nowhere" if path.is_symlink() else "no regular file"


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
