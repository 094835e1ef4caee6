"""Errors that people read: one line each, made of what was found and what to do about it.

A fault that may pass (a network, a full disk, lost processes, no memory) is told apart from bad input, which stays bad.
"""

import errno
import re
from collections.abc import Iterable, Iterator
from typing import Any

from cluster.log_text import clean
from cluster.system_errors import is_unknown_host, system_fault

# Of the system's errors, these are about a path or an address that somebody gave; the others may pass.
_ABOUT_INPUT = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    BlockingIOError,  # a lock that another command holds
)
_INPUT_CODES = (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.EADDRINUSE, errno.EADDRNOTAVAIL)
# Without a code of the system, these are what Pillow, gzip and Arrow say of a damaged file.
_OF_CONTENT = ("OSError", "UnidentifiedImageError", "BadGzipFile")
_PASSING_STATUSES = (408, 425, 429)  # a time-out, and requests that are too early or too many
_FULL = re.compile("no space left on device|disk quota exceeded|database or disk is full", re.IGNORECASE)
_NO_MEMORY = re.compile(r"out ?of ?memory|\bMemoryError|low on memory|can(no|')t allocate memory", re.IGNORECASE)
_MEMORY_REMEDY = "run fewer processes at once, use smaller batches, or machines with more memory"


class Refusal(ValueError):  # noqa: N818  the field's word for what a gate or a check does
    """Bad input, or a job that cannot work.

    Args:
        found: what was found, and why it fails.
        remedy: what to do; empty if unknown.
    """

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, remedy)
        self.found, self.remedy = found, remedy

    def __str__(self) -> str:
        """Return what was found and what to do, on one line."""
        return found_and_remedy(self.found, self.remedy)


class Mistakes(ValueError):  # noqa: N818  several errors
    """Mistakes in a command line or a file of settings.

    Args:
        lines: one line for each mistake.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class GateRefusal(Exception):  # noqa: N818  a decision, not an error
    """A promotion that the gate refuses; the message says why."""


class Unreachable(ConnectionError):  # noqa: N818  as above
    """A cluster or a tracker that does not answer, or that rejects requests from this process.

    Args:
        found: what was tried, and how it failed.
        remedy: what to do; empty if unknown.
    """

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found_and_remedy(found, remedy))  # OSError reads two arguments as an errno and its text
        self.found, self.remedy = found, remedy

    def __reduce__(self) -> tuple:
        """Pickle both texts: the error may be raised in another process, and OSError keeps only the message."""
        return type(self), (self.found, self.remedy)


def found_and_remedy(found: str, remedy: str) -> str:
    """Return what was found and what to do as one line."""
    return f"{found}; {remedy}" if remedy else found


def one_line(error: BaseException | str, *, with_kind: bool = True, longest: int | None = 500) -> str:
    """Return an error's message on one line, without credentials and unprintable characters.

    Args:
        error: the error, or its text as reported by another process or library.
        with_kind: whether to begin with the name of the error's class, before the error's own text; ignored for a text.
        longest: number of characters after which the text is cut; None to keep all of it.
    """
    if not isinstance(error, BaseException):
        text = error
    elif with_kind:
        text = f"{type(error).__name__}: {error}"
    else:
        text = fault.found if (fault := system_fault(error)) else str(error)
    return clean(" ".join(text.split()))[:longest]


def shorten(text: str, longest: int = 2000) -> str:
    """Return a text of at most so many characters, with ... in its middle, so that what to do at its end stays."""
    end = longest // 4
    return text if len(text) <= longest else f"{text[: longest - end - 5]} ... {text[-end:]}"


def last_line(error: BaseException | str) -> str:
    """Return the last line of an error's text: Ray's errors end in a traceback, and its last line names the cause."""
    return one_line("".join(str(error).strip().splitlines()[-1:]))


def failure_line(error: BaseException) -> str:
    """Return an error with its class on one line; of one from another Ray process, without that process's traceback."""
    return last_line(error) if _is_of_ray(error) else one_line(error)


class PassingFault(OSError):  # noqa: N818  the field's word
    """A fault that may pass, such as a full disk; the message says what to do."""


def passing_fault(error: BaseException) -> str | None:
    """Return a fault that may pass, on one line; None if the input or the program is at fault.

    Args:
        error: any error; its causes and contexts are searched as well.
    """
    chain = [*causes(error)]
    fault = next((one for one in chain if _may_pass(one)), None)
    if fault is None or any(map(is_unknown_host, chain)):
        return None
    if isinstance(fault, PassingFault):
        return str(fault)
    found = _found(error)
    if is_out_of_memory(fault):
        return found_and_remedy(f"memory ran out ({found})", _MEMORY_REMEDY)
    if not _is_about_a_full_disk(fault):
        return found
    told = found if _FULL.search(found) else f"{found} ({_found(fault)})"
    return found_and_remedy(told, "make room there, then run the same command again")


def portable(error: Exception) -> ValueError | PassingFault:
    """Return an error that says the same as another one, and that can be sent to another process as a value.

    Ray would wrap a raised error in one of its own, and pickling drops an error's causes.
    """
    fault = passing_fault(error)
    return PassingFault(fault) if fault else ValueError(_found(error))


def is_out_of_memory(error: BaseException | str) -> bool:
    """Return whether Python, torch or Ray's memory monitor ended some work for lack of memory, by its error or text."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(f"{type(error).__name__}: {error}"))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the error that it was raised from or while handling, and so on, up to one raised from None."""
    found: Any = error
    while isinstance(found, BaseException):
        yield found
        context = None if found.__suppress_context__ else found.__context__
        # The last is the error of a task, in Ray's own.
        found = found.__cause__ or context or getattr(found, "cause", None)


def _may_pass(error: BaseException) -> bool:
    # An error of a URL or of a certificate is an OSError and a ValueError, and will not pass.
    if isinstance(error, OSError) and not isinstance(error, ValueError):
        is_of_content = error.errno is None and type(error).__name__ in _OF_CONTENT
        is_of_input = is_of_content or isinstance(error, _ABOUT_INPUT) or error.errno in _INPUT_CODES
        return not is_of_input and not _is_refused_by_a_server(error)
    # Not the errors of a task's own code, which hold their cause, nor a refused token.
    is_lost = _is_of_ray(error) and not hasattr(error, "cause") and type(error).__name__ != "AuthenticationError"
    return is_lost or is_out_of_memory(error) or _is_about_a_full_disk(error)


def _is_refused_by_a_server(error: OSError) -> bool:
    """Return whether a server has answered a request, of urllib or requests, and will answer the same again."""
    status = getattr(getattr(error, "response", error), "status_code", getattr(error, "code", None))
    return isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUSES


def _is_of_ray(error: BaseException) -> bool:
    return type(error).__module__ == "ray.exceptions"


def _is_about_a_full_disk(error: BaseException) -> bool:
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(_FULL.search(str(error)))


def error_line(error: BaseException) -> str:
    """Return what an error says, and of the system's errors what to do, on one line."""
    fault = system_fault(error)
    text = found_and_remedy(*fault) if fault else str(error)
    return one_line(text, longest=None) or type(error).__name__


def _found(error: BaseException) -> str:
    if _is_of_ray(error):
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return one_line(lines[0] if is_out_of_memory(error) else lines[-1])
    return error_line(error)
