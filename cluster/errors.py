"""Errors that people read: one line each, made of what was found and what to do about it."""

from collections.abc import Iterable

from cluster.log_text import clean


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
        with_kind: whether to begin with the name of the error's class; ignored for a text.
        longest: number of characters after which the text is cut; None to keep all of it.
    """
    text = f"{type(error).__name__}: {error}" if with_kind and isinstance(error, BaseException) else str(error)
    return clean(" ".join(text.split()))[:longest]


def shorten(text: str, longest: int = 2000) -> str:
    """Return a text of at most so many characters, with ... in its middle, so that what to do at its end stays."""
    end = longest // 4
    return text if len(text) <= longest else f"{text[: longest - end - 5]} ... {text[-end:]}"


def last_line(error: BaseException | str) -> str:
    """Return the last line of an error's text: Ray's errors end in a traceback, and its last line names the cause."""
    return one_line("".join(str(error).strip().splitlines()[-1:]))
