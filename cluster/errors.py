"""Errors for people: on one line, and refusals that name what was found and what to do."""


class Refusal(ValueError):  # noqa: N818  the field's word for what a gate or a check does
    """Bad input, or a job that cannot work.

    Args:
        found: what was found, and why it fails.
        remedy: what to do.
    """

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, remedy)
        self.found, self.remedy = found, remedy

    def __str__(self) -> str:
        """Return both, in one line."""
        return f"{self.found}; {self.remedy}"


class GateRefusal(Exception):  # noqa: N818  a decision, not an error
    """A promotion that the gate refuses, and why."""


def one_line(error: BaseException, *, with_kind: bool = True, longest: int | None = 300) -> str:
    """Return an error's message on one line.

    Args:
        error: the error.
        with_kind: whether the name of its class comes first.
        longest: number of characters after which the text is cut; None for all of it.
    """
    text = f"{type(error).__name__}: {error}" if with_kind else str(error)
    return " ".join(text.split())[:longest]
