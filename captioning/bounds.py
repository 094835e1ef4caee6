"""Bounds of settings: one line for each value out of them. Imports neither torch nor Ray."""

import math
from collections.abc import Iterable, Iterator


def raise_mistakes(mistakes: Iterable[str]) -> None:
    """Raise one error that names all mistakes in a section of the settings, if there are any.

    Args:
        mistakes: one line for each mistake; it begins with the name of the setting.

    Raises:
        ValueError: there is a mistake; the message has one line for each.
    """
    if lines := list(mistakes):
        raise ValueError("\n".join(lines))


def outside(config: object, **ranges: tuple[float, float]) -> Iterator[str]:
    """Yield a line for each given setting out of its range, of which both ends belong to it: ``beam_size=(1, 20)``."""
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            yield f"{name} {value} is out of range; use {least} to {most}"


def not_positive(config: object, *names: str) -> Iterator[str]:
    """Yield a line for each setting that is not above 0 and finite."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            yield f"{name} {value} is not positive and finite; use a number above 0"


def too_large(config: object, **limits: int) -> Iterator[str]:
    """Yield a line for each setting above its limit."""
    for name, limit in limits.items():
        value = getattr(config, name)
        if limit < value < math.inf:
            yield f"{name} {value} is too large; use at most {limit}"


def negative(config: object, *names: str) -> Iterator[str]:
    """Yield a line for each setting that is below 0 or not finite."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            yield f"{name} {value} is negative or not finite; use 0 or more"
