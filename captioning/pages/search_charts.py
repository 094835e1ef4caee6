"""Charts of a search: parallel coordinates, learning curves, and the best score over the cost of all trials."""

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from captioning.pages.html import ACCENT, Theme, render_chart, style_axes
from captioning.pages.parallel_coordinates import draw_parallel, parameter_scale, shorten, spans_decades
from captioning.pages.trial_summary import Mode, TrialSummary, parameter_keys, rank_trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEST = "#e8702a"
_STOPPED = "#8b919c"


class CostPoint(NamedTuple):
    """The best score of a search at some cost.

    Attributes:
        epochs: number of epochs of all trials so far.
        best: best score so far; nan before the first score.
    """

    epochs: float
    best: float


def search_charts(
    trials: Sequence[TrialSummary], *, metric: str, mode: Mode, log_keys: Collection[str]
) -> list[dict[str, str]]:
    """Draw parallel coordinates, learning curves, and the best score over the cost.

    Returns:
        Template variables of each chart, as ``render_chart`` returns them; empty if no trial has a score.
    """
    ranked = [trial for rank, trial in rank_trials(trials, mode) if rank]
    if not ranked:
        return []
    best = f"{ranked[0].name} is best with {ranked[0].best(mode):.4g}"
    costs = best_against_cost(trials, mode)
    charts = [
        render_chart(
            f"{metric} over epochs, one line per trial: {best}", lambda theme: _draw_curves(ranked, theme, metric, mode)
        ),
        render_chart(
            f"best {metric} so far, after {costs[-1].epochs:g} epochs of all trials: {costs[-1].best:.4g}",
            lambda theme: _draw_costs(costs, theme, metric),
        ),
    ]
    scales = {
        key: parameter_scale(key, [trial.point[key] for trial in ranked if key in trial.point], is_log=key in log_keys)
        for key in parameter_keys(ranked)
    }
    if scales:
        text = f"{', '.join(scales)} and {metric}, one line per trial ({len(ranked)}): {best}"
        charts.insert(
            0, render_chart(text, lambda theme: draw_parallel(ranked, scales, theme, metric=metric, mode=mode))
        )
    return charts


def best_against_cost(trials: Sequence[TrialSummary], mode: Mode) -> list[CostPoint]:
    """Return the cost and the best score so far, after each validation of any trial.

    Validations are in the order of their times if all are known, otherwise in the order of the trials. The epochs of a
    failed trial count, but its scores do not.
    """
    better = min if mode == "min" else max
    events = []
    for trial in trials:
        before = 0.0
        for number, (epoch, score) in enumerate(trial.curve):
            counts = trial.state != "failed" and math.isfinite(score)
            time = trial.reported[number] if trial.reported else math.nan
            events.append((time, max(epoch - before, 0.0), score if counts else math.nan))
            before = epoch
    if not any(math.isnan(time) for time, _, _ in events):
        events.sort(key=lambda event: event[0])
    points, epochs, best = [], 0.0, math.nan
    for _, cost, score in events:
        epochs += cost
        best = score if math.isnan(best) else best if math.isnan(score) else better(best, score)
        points.append(CostPoint(epochs, best))
    return points


def _draw_curves(ranked: Sequence[TrialSummary], theme: Theme, metric: str, mode: Mode) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    lines = {}  # one line of each kind, for the legend
    for trial in reversed(ranked):  # the best is drawn last, on top
        is_best = trial is ranked[0]
        last = max(number for number, (_, score) in enumerate(trial.curve) if math.isfinite(score))
        [lines[f"best: {shorten(trial.name)}" if is_best else trial.state]] = axes.plot(
            [epoch for epoch, _ in trial.curve],
            [score if math.isfinite(score) else math.nan for _, score in trial.curve],
            color=_BEST if is_best else _STOPPED if trial.state == "stopped" else ACCENT,
            linewidth=2.4 if is_best else 1.1,
            linestyle="--" if trial.state == "running" else "-",
            alpha=1 if is_best else 0.65,
            marker="o",
            markersize=3.5,
            markevery=None if is_best else [last],
        )
    if spans_decades([score for trial in ranked for _, score in trial.curve if math.isfinite(score)], mode):
        axes.set_yscale("log")
    style_axes(axes, theme, title=_short_title(metric), x_label="epoch")
    colours = {"facecolor": theme.card, "edgecolor": "none", "labelcolor": theme.ink}
    corner = "upper right" if mode == "min" else "lower right"
    legend = axes.legend([*reversed(lines.values())], [*reversed(lines)], loc=corner, fontsize=8, **colours)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_costs(costs: Sequence[CostPoint], theme: Theme, metric: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    epochs, scores = zip(*costs, strict=True)
    axes.step(epochs, scores, where="post", color=ACCENT, linewidth=1.8)
    better = [costs[0], *(after for before, after in pairwise(costs) if after.best != before.best)]
    axes.plot(*zip(*better, strict=True), linestyle="", marker="o", markersize=4, color=_BEST)
    style_axes(axes, theme, title=f"best so far: {_short_title(metric)}", x_label="epochs of all trials together")
    return figure


def _short_title(metric: str) -> str:
    return metric if len(metric) <= 48 else f"{metric[:47]}…"
