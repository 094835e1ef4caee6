"""The operating system's errors as lines that people read: which path, why it fails, and what to do."""

import errno
import os
import pwd
import resource
import socket
from pathlib import Path
from typing import NamedTuple

# A missing file may be one of this program, or a program itself, and what exists may be data: no remedy for these.
_OF_A_PATH = {
    errno.ENOENT: ("{path} does not exist", ""),
    errno.EEXIST: ("{path} exists already", ""),
    errno.EISDIR: ("{path} is a folder, and a file is needed", "correct the path"),
    errno.ENOTDIR: ("{path} is not a folder, or a part of its path is not", "correct the path"),
    errno.EROFS: ("{path} is on a read-only file system", "choose another path, or mount it for writing"),
    errno.ELOOP: ("the symbolic links of {path} lead back to themselves", "correct them"),
    errno.ENAMETOOLONG: ("{path} is longer than the file system allows", "choose a shorter name"),
}
_DENIED = (errno.EACCES, errno.EPERM)
_TOO_MANY_FILES = {errno.EMFILE: "this process has", errno.ENFILE: "this machine has"}
_LONGEST_PATH = 200
_UNKNOWN_HOST = {
    getattr(socket, name, None) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY", "EAI_FAMILY")
} - {None}  # which of these exist depends on the system


class SystemFault(NamedTuple):
    """What one of the system's errors says, and what to do; the remedy is empty if unknown."""

    found: str
    remedy: str


def system_fault(error: BaseException) -> SystemFault | None:
    """Return what one of the system's errors says, with its path; None if the error is none of the system's."""
    if not isinstance(error, OSError) or not error.errno or not error.strerror:
        return None
    path, target = _path(error.filename), _path(error.filename2)
    where = f"{_shown(path)}: " if path else ""
    if who := _TOO_MANY_FILES.get(error.errno):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return SystemFault(f"{where}{who} too many open files", f"raise the limit of {limit} with ulimit -n")
    if target:  # which of the two is at fault is unknown
        reason = f"{error.strerror[0].lower()}{error.strerror[1:]}"
        return SystemFault(f"{_shown(path)} -> {_shown(target)}: {reason}", "")
    if path and error.errno in _DENIED:
        return SystemFault(_denied(Path(path)), "give the user this permission, or choose another path")
    if path and error.errno in _OF_A_PATH:
        found, remedy = _OF_A_PATH[error.errno]
        return SystemFault(found.format(path=_shown(path)), remedy)
    return SystemFault(f"{where}{error.strerror}", "")


def is_unknown_host(error: BaseException) -> bool:
    """Return whether the name of a host is unknown or impossible: not a look-up that failed, which may pass."""
    if isinstance(error, socket.gaierror):
        return error.errno in _UNKNOWN_HOST
    return isinstance(error, UnicodeError) and "'idna' codec" in str(error)


def _denied(path: Path) -> str:
    """Return what this user may not do, as far as the system tells: an error says only the path."""
    user = f"user {_user()} may not"
    if closed := next((one for one in reversed(path.absolute().parents) if not os.access(one, os.X_OK)), None):
        return f"{user} look into folder {_shown(f'{closed}')}"
    if not os.path.lexists(path):
        return f"{user} write to folder {_shown(f'{path.parent}')}"
    missing = [verb for verb, mode in (("read", os.R_OK), ("write", os.W_OK)) if not os.access(path, mode)]
    return f"{user} {missing[0] if missing else 'change'} {_shown(f'{path}')}"


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container, a user id need not have a name
        return f"{os.geteuid()}"


def _path(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""


def _shown(path: str) -> str:
    return path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH // 2]}...{path[-_LONGEST_PATH // 4 :]}"
