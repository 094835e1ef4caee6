"""Charts of a search: learning curves, and the best score over the cost of all trials."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from captioning.pages.charts import Chart, Curve
from captioning.pages.trial_summary import Mode, TrialSummary, rank_trials

_MOST_CURVES = 200


class CostPoint(NamedTuple):
    """The best score of a search at some cost.

    Attributes:
        epochs: number of epochs of all trials so far.
        best: best score so far; nan before the first score.
    """

    epochs: float
    best: float


def search_charts(trials: Sequence[TrialSummary], *, metric: str, unit: str, mode: Mode) -> list[Chart]:
    """Return the charts of a search; none if no trial has a score.

    Args:
        trials: trials in the order of their numbers.
        metric: name of the score.
        unit: unit of the score; empty for none.
        mode: whether a lower (min) or a higher (max) score is better.
    """
    ranked = [trial for rank, trial in rank_trials(trials, mode) if rank]
    if not ranked:
        return []
    name = f"{metric[:1].upper()}{metric[1:]}"
    finite = [score for trial in ranked for _, score in trial.curve if math.isfinite(score)]
    curves = [
        # The best is drawn last, on top.
        Curve(
            name="",
            points=trial.curve,
            colour="best" if trial is ranked[0] else "weak",
            has_dots=False,
            trial=trial.name,
        )
        for trial in reversed(ranked[:_MOST_CURVES])
    ]
    costs = [point for point in best_against_cost(trials, mode) if math.isfinite(point.best)]
    return [
        Chart(title=f"{name} of each trial", unit=unit, curves=curves, is_log=spans_decades(finite, mode)),
        Chart(
            title=f"Best {metric} so far",
            unit=unit,
            curves=[Curve(name="", points=_steps(costs), has_dots=False)],
            x_label="epochs of all trials",
            is_log=spans_decades(finite, mode),
        ),
    ]


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


def spans_decades(scores: Sequence[float], mode: Mode) -> bool:
    """Return whether losses are too far apart for a linear axis, for example because a trial diverged."""
    return mode == "min" and 0 < 30 * min(scores) < max(scores)


def _steps(costs: Sequence[CostPoint]) -> list[tuple[float, float]]:
    """Return the points of a curve that stays level until a better score."""
    points: list[tuple[float, float]] = [costs[0]]
    for before, after in pairwise(costs):
        if after.best != before.best:
            points += [(after.epochs, before.best), after]
    if points[-1][0] != costs[-1].epochs:
        points.append(costs[-1])
    return points
