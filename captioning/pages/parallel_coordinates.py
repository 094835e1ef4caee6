"""Parallel coordinates: an upright axis a parameter, and a line a trial that ends at its score."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from captioning.pages.html import DARK, Theme
from captioning.pages.trial_summary import Mode, TrialSummary, Value, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

_MOST_BOLD = 50
_MOST_TICKS = 6
_LEAST_GAP = 0.07
_LONGEST_TEXT = 20


class Scale(NamedTuple):
    """One of the upright axes that the line of a trial crosses."""

    label: str
    height: Callable[[Value], float]
    """Value -> where it is on the axis, 0 to 1."""
    ticks: Sequence[tuple[float, str]]
    """(height, text)."""


def draw_parallel(
    ranked: Sequence[TrialSummary], scales: Mapping[str, Scale], theme: Theme, *, metric: str, mode: Mode
) -> "Figure":
    """Draw the lines of trials with scores, best first, in the colours of their scores; who still runs is dashed."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    scores = [trial.best(mode) or 0.0 for trial in ranked]
    is_log = spans_decades(scores, mode)
    score_scale = _number_scale(metric, sorted(set(scores)), is_log)
    norm, colours = _norm(scores, is_log), _colours(theme, mode)
    figure = Figure(figsize=(max(10.5, 1.7 * len(scales) + 2), 4.2), layout="constrained")
    axes = figure.add_subplot()
    for trial, score in reversed([*zip(ranked, scores, strict=True)]):  # the best on top
        heights = [scale.height(trial.point[key]) if key in trial.point else math.nan for key, scale in scales.items()]
        axes.plot(
            [*heights, score_scale.height(score)],
            color=colours(norm(score)),
            linewidth=2.6 if trial is ranked[0] else 1.2,
            linestyle="--" if trial.state == "running" else "-",
            alpha=0.9 if len(ranked) <= _MOST_BOLD or trial is ranked[0] else 0.6,
        )
    for place, scale in enumerate([*scales.values(), score_scale]):
        _draw_scale(axes, scale, place, theme, is_last=place == len(scales))
    axes.set(xlim=(-0.5, len(scales) + 0.45), ylim=(-0.04, 1.04))
    axes.set_axis_off()
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, fraction=0.03, pad=0.01)
    bar.ax.tick_params(colors=theme.ink, which="both")
    bar.outline.set_visible(False)
    return figure


def _draw_scale(axes: "Axes", scale: Scale, place: int, theme: Theme, *, is_last: bool) -> None:
    axes.axvline(place, color=theme.ink, linewidth=1)
    axes.text(place, 1.07, scale.label, color=theme.ink, ha="center", fontsize=9, parse_math=False)
    side, alignment = (1, "left") if is_last else (-1, "right")  # beside the lines, where there are none
    frame = {"facecolor": theme.card, "edgecolor": "none", "alpha": 0.8, "pad": 1}
    style = {"color": theme.ink, "ha": alignment, "va": "center", "fontsize": 8, "bbox": frame}
    for height, text in scale.ticks:
        axes.plot([place, place + 0.012 * side], [height, height], color=theme.ink, linewidth=1)
        axes.text(place + 0.025 * side, height, text, parse_math=False, **style)


def parameter_scale(label: str, values: Sequence[Value], is_log: bool = False) -> Scale:
    """Return the axis of a parameter: by ratio if asked, or if its values span more than a decade."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        names = sorted({value_text(value) for value in values})
        heights = {name: (index + 0.5) / len(names) for index, name in enumerate(names)}
        ticks = [(height, short(name)) for name, height in heights.items()]
        return Scale(_broken(label), lambda value: heights[value_text(value)], ticks)
    low, high = min(numbers), max(numbers)
    is_log = low > 0 and (is_log or high > 10 * low)
    return _number_scale(label, sorted(set(numbers)), is_log)


def _number_scale(label: str, numbers: Sequence[float], is_log: bool) -> Scale:
    moved = math.log10 if is_log else float
    low, high = moved(numbers[0]), moved(numbers[-1])

    def height(value: Value) -> float:
        return (moved(float(value or 0)) - low) / (high - low) if high > low else 0.5

    gaps = [height(after) - height(before) for before, after in pairwise(numbers)]
    are_few = len(numbers) <= _MOST_TICKS and all(gap >= _LEAST_GAP for gap in gaps)
    marked = numbers if are_few else _round_numbers(numbers[0], numbers[-1], is_log)
    return Scale(_broken(label), height, [(height(number), f"{number:.4g}") for number in marked])


def _round_numbers(low: float, high: float, is_log: bool) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) if is_log else range(0)
    for steps in ((1, 2, 5), (1,)):
        marks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        marks = [mark for mark in marks if low <= mark <= high]
        if 2 <= len(marks) <= _MOST_TICKS:
            return marks
    return [float(mark) for mark in MaxNLocator(5).tick_values(low, high) if low <= mark <= high]


def _broken(label: str) -> str:
    """Return a label on several lines: a key's section, and what follows in pieces."""
    lines = [""]
    for piece in re.findall(r"[^._ ]*[._ ]?", label):
        if lines[-1].endswith(".") or len(lines[-1] + piece.rstrip()) > _LONGEST_TEXT:
            lines.append("")
        lines[-1] += piece
    return "\n".join(short(line) for line in lines if line)


def short(text: str) -> str:
    """Return a text as it fits into a chart: both ends, for names often differ in their last letters."""
    text, half = " ".join(text.split()), _LONGEST_TEXT // 2
    return text if len(text) <= _LONGEST_TEXT else f"{text[: half - 1]}…{text[-half:]}"


def spans_decades(scores: Sequence[float], mode: Mode) -> bool:
    """Return whether losses are too far apart for one linear axis, as when a trial diverges."""
    return mode == "min" and 0 < 30 * min(scores) < max(scores)


def _norm(scores: Sequence[float], is_log: bool) -> "Normalize":
    from matplotlib.colors import LogNorm, Normalize

    low, high = min(scores), max(scores)
    if low == high:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    return LogNorm(low, high) if is_log else Normalize(low, high)


def _colours(theme: Theme, mode: Mode) -> "Colormap":
    """Return colours from the lowest score to the highest; the better, the further from the background."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    best, worst = (1.0, 0.28) if theme == DARK else (0.0, 0.88)
    ends = (best, worst) if mode == "min" else (worst, best)
    return ListedColormap(colormaps["viridis"](np.linspace(*ends, 256)))
