"""What an error says, on one line: for events, records and answers that people read."""


def one_line(error: BaseException, *, longest: int | None = None) -> str:
    """Return an error's kind and message on one line, cut after ``longest`` characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:longest]
