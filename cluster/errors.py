"""Errors for people: on one line, and with what was found and what to do as fields of their own."""


class Refusal(ValueError):  # noqa: N818  the field's word for what a gate or a check does
    """Bad input, or a job that cannot work.

    Args:
        found: what was found, and why it fails.
        remedy: what to do; empty if nobody knows.
    """

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, remedy)
        self.found, self.remedy = found, remedy

    def __str__(self) -> str:
        """Return both on one line."""
        return found_and_remedy(self.found, self.remedy)


class GateRefusal(Exception):  # noqa: N818  a decision, not an error
    """A promotion that the gate refuses, and why."""


class Unreachable(ConnectionError):  # noqa: N818  as above
    """A cluster or a tracker that does not answer, or that takes no requests from this process.

    Args:
        found: what was tried, and what came of it.
        remedy: what to do; empty if nobody knows.
    """

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found_and_remedy(found, remedy))  # an OSError takes two arguments for a number and its text
        self.found, self.remedy = found, remedy

    def __reduce__(self) -> tuple:
        """Pickle both texts, for the error may come from another process."""
        return type(self), (self.found, self.remedy)


def found_and_remedy(found: str, remedy: str) -> str:
    """Return what was found and what to do as one sentence."""
    return f"{found}; {remedy}" if remedy else found


def one_line(error: BaseException | str, *, with_kind: bool = True, longest: int | None = 500) -> str:
    """Return an error's message on one line.

    Args:
        error: the error, or a text that another process or library reports it with.
        with_kind: whether the name of the error's class comes first; a text has none.
        longest: number of characters after which the text is cut; None for all of it.
    """
    text = f"{type(error).__name__}: {error}" if with_kind and isinstance(error, BaseException) else str(error)
    return " ".join(text.split())[:longest]


def last_line(error: BaseException | str) -> str:
    """Return the last line of an error whose text is a traceback, as Ray's are: it names the cause."""
    return one_line("".join(str(error).strip().splitlines()[-1:]))
