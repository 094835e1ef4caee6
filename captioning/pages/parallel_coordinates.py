"""Parallel coordinates: a vertical axis for each parameter and for the score, and a line across them for each trial."""

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

_MAX_OPAQUE_LINES = 50
_MAX_TICKS = 6
_MIN_TICK_GAP = 0.07
_MAX_TEXT_LENGTH = 20


class Scale(NamedTuple):
    """One vertical axis.

    Attributes:
        label: text above the axis.
        height: function from a value to its height on the axis, from 0 to 1.
        ticks: height and text of each tick.
    """

    label: str
    height: Callable[[Value], float]
    ticks: Sequence[tuple[float, str]]


def draw_parallel(
    ranked: Sequence[TrialSummary], scales: Mapping[str, Scale], theme: Theme, *, metric: str, mode: Mode
) -> "Figure":
    """Draw a line for each trial, coloured by its score, and dashed if the trial is running.

    Args:
        ranked: trials with a score, best first.
        scales: axis of each parameter, by key.
        theme: colours of the chart.
        metric: label of the score's axis.
        mode: whether a lower (min) or a higher (max) score is better.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    scores = [trial.best(mode) or 0.0 for trial in ranked]
    is_log = spans_decades(scores, mode)
    score_scale = _number_scale(metric, sorted(set(scores)), is_log)
    norm, colours = _norm(scores, is_log), _colours(theme, mode)
    figure = Figure(figsize=(max(10.5, 1.7 * len(scales) + 2), 4.2), layout="constrained")
    axes = figure.add_subplot()
    for trial, score in reversed([*zip(ranked, scores, strict=True)]):  # the best is drawn last, on top
        heights = [scale.height(trial.point[key]) if key in trial.point else math.nan for key, scale in scales.items()]
        axes.plot(
            [*heights, score_scale.height(score)],
            color=colours(norm(score)),
            linewidth=2.6 if trial is ranked[0] else 1.2,
            linestyle="--" if trial.state == "running" else "-",
            alpha=0.9 if len(ranked) <= _MAX_OPAQUE_LINES or trial is ranked[0] else 0.6,
        )
    for x, scale in enumerate([*scales.values(), score_scale]):
        _draw_scale(axes, scale, x, theme, is_last=x == len(scales))
    axes.set(xlim=(-0.5, len(scales) + 0.45), ylim=(-0.04, 1.04))
    axes.set_axis_off()
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, fraction=0.03, pad=0.01)
    bar.ax.tick_params(colors=theme.ink, which="both")
    bar.outline.set_visible(False)
    return figure


def _draw_scale(axes: "Axes", scale: Scale, x: int, theme: Theme, *, is_last: bool) -> None:
    axes.axvline(x, color=theme.ink, linewidth=1)
    axes.text(x, 1.07, scale.label, color=theme.ink, ha="center", fontsize=9, parse_math=False)
    # Labels of the first and the last axis are outside of the lines.
    side, alignment = (1, "left") if is_last else (-1, "right")
    frame = {"facecolor": theme.card, "edgecolor": "none", "alpha": 0.8, "pad": 1}
    style = {"color": theme.ink, "ha": alignment, "va": "center", "fontsize": 8, "bbox": frame}
    for height, text in scale.ticks:
        axes.plot([x, x + 0.012 * side], [height, height], color=theme.ink, linewidth=1)
        axes.text(x + 0.025 * side, height, text, parse_math=False, **style)


def parameter_scale(label: str, values: Sequence[Value], is_log: bool = False) -> Scale:
    """Return the axis of a parameter.

    Args:
        label: name of the parameter.
        values: values of the parameter in all trials; the axis has categories unless all of them are numbers.
        is_log: whether to use a logarithmic scale, which values spanning more than a decade use in any case.
    """
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        names = sorted({value_text(value) for value in values})
        heights = {name: (index + 0.5) / len(names) for index, name in enumerate(names)}
        ticks = [(height, shorten(name)) for name, height in heights.items()]
        return Scale(_broken(label), lambda value: heights[value_text(value)], ticks)
    low, high = min(numbers), max(numbers)
    is_log = low > 0 and (is_log or high > 10 * low)
    return _number_scale(label, sorted(set(numbers)), is_log)


def _number_scale(label: str, numbers: Sequence[float], is_log: bool) -> Scale:
    transform = math.log10 if is_log else float
    low, high = transform(numbers[0]), transform(numbers[-1])

    def height(value: Value) -> float:
        return (transform(float(value or 0)) - low) / (high - low) if high > low else 0.5

    gaps = [height(after) - height(before) for before, after in pairwise(numbers)]
    are_few = len(numbers) <= _MAX_TICKS and all(gap >= _MIN_TICK_GAP for gap in gaps)
    ticks = numbers if are_few else _round_numbers(numbers[0], numbers[-1], is_log)
    return Scale(_broken(label), height, [(height(number), f"{number:.4g}") for number in ticks])


def _round_numbers(low: float, high: float, is_log: bool) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) if is_log else range(0)
    for steps in ((1, 2, 5), (1,)):
        marks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        marks = [mark for mark in marks if low <= mark <= high]
        if 2 <= len(marks) <= _MAX_TICKS:
            return marks
    return [float(mark) for mark in MaxNLocator(5).tick_values(low, high) if low <= mark <= high]


def _broken(label: str) -> str:
    """Return a label broken into lines: after a key's section, and where a line would be too long."""
    lines = [""]
    for piece in re.findall(r"[^._ ]*[._ ]?", label):
        if lines[-1].endswith(".") or len(lines[-1] + piece.rstrip()) > _MAX_TEXT_LENGTH:
            lines.append("")
        lines[-1] += piece
    return "\n".join(shorten(line) for line in lines if line)


def shorten(text: str) -> str:
    """Return a text shortened to fit a chart; both ends stay, because names often differ only at their end."""
    text, half = " ".join(text.split()), _MAX_TEXT_LENGTH // 2
    return text if len(text) <= _MAX_TEXT_LENGTH else f"{text[: half - 1]}…{text[-half:]}"


def spans_decades(scores: Sequence[float], mode: Mode) -> bool:
    """Return whether losses are too far apart for a linear axis, for example because a trial diverged."""
    return mode == "min" and 0 < 30 * min(scores) < max(scores)


def _norm(scores: Sequence[float], is_log: bool) -> "Normalize":
    from matplotlib.colors import LogNorm, Normalize

    low, high = min(scores), max(scores)
    if low == high:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    return LogNorm(low, high) if is_log else Normalize(low, high)


def _colours(theme: Theme, mode: Mode) -> "Colormap":
    """Return the colours from the lowest score to the highest; better scores contrast more with the background."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    best, worst = (1.0, 0.28) if theme == DARK else (0.0, 0.88)
    ends = (best, worst) if mode == "min" else (worst, best)
    return ListedColormap(colormaps["viridis"](np.linspace(*ends, 256)))
