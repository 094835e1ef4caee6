"""Axes of charts: ticks at round numbers, linear or logarithmic, and where a value is between the ends."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MAX_TICKS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A numeric axis."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Return where a value is between the ends: 0 at ``low``, 1 at ``high``; 0.5 on an axis without length."""
        low, high, value = (math.log(one) if self.is_log else one for one in (self.low, self.high, value))
        return (value - low) / (high - low) if high > low else 0.5

    def labels(self) -> list[tuple[float, str]]:
        """Return the place, from 0 to 1, and the text of each tick."""
        texts = [_text(tick) for tick in self.ticks] if self.is_log else tick_texts(self.ticks)
        return [(self.share(tick), text) for tick, text in zip(self.ticks, texts, strict=True)]


def axis_of(values: Iterable[float], *, is_log: bool = False, is_tight: bool = False) -> Axis:
    """Return an axis that holds all values.

    Args:
        values: finite numbers, at least one.
        is_log: whether the axis is logarithmic, if all values are positive.
        is_tight: whether the axis ends at the lowest and the highest value, instead of at round numbers beyond.
    """
    known = [*values]
    low, high = min(known), max(known)
    if is_log and low > 0:
        return _log_axis(low, high, is_tight=is_tight)
    if low == high and not is_tight:
        pad = abs(low) / 10 or 1.0
        low, high = low - pad, high + pad
    step = _round_step((high - low) / (_MAX_TICKS - 1))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if not is_tight:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        low, high = first * step, last * step
    ticks = tuple(number * step for number in range(first, last + 1))
    return Axis(low=low, high=high, ticks=ticks or (low,))


def _round_step(least: float) -> float:
    """Return the lowest of 1, 2 and 5 times a power of ten that is not below ``least``."""
    if least <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(least))
    return next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= least * (1 - 1e-9))


def _log_axis(low: float, high: float, *, is_tight: bool) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        marks = [factor * 10.0**decade for decade in range(first, last + 1) for factor in factors]
        inside = [mark for mark in marks if low * (1 - 1e-9) <= mark <= high * (1 + 1e-9)]
        if len(inside) <= _MAX_TICKS:
            break
    else:
        inside = inside[:: -(-len(inside) // _MAX_TICKS)]
    if not is_tight:
        low, high = low / 1.1, high * 1.1
    return Axis(low=low, high=high, ticks=tuple(inside) or (low,), is_log=True)


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Return the texts of ticks at equal distances, with the same number of decimals for all of them."""
    largest = max(abs(tick) for tick in ticks)
    texts = [_text(tick, zero_below=largest / 1e6) for tick in ticks]
    if not all(re.fullmatch(r"-?\d+(\.\d+)?", text) for text in texts):
        return texts
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [f"{float(text):.{decimals}f}" for text in texts]


def _text(value: float, zero_below: float = 0.0) -> str:
    """Return a number as short text, such as 0.25, 2e-4 or 15k."""
    size = abs(value)
    if size <= zero_below:
        return "0"
    if size < 1e-3 or size >= 1e12:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    return f"{value:.6g}"
