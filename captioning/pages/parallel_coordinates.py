"""Parallel coordinates: an axis for each setting and for the score, one below another, and a line for each trial."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from captioning.pages.axes import Axis, axis_of
from captioning.pages.trial_summary import Mode, TrialSummary, Value, parameter_keys, value_text

_MOST_LINES = 200
_MOST_TICKS, _LEAST_TICK_GAP = 6, 0.14


def trial_lines(
    ranked: Sequence[TrialSummary], *, metric: str, mode: Mode, log_keys: Collection[str]
) -> dict[str, Any] | None:
    """Return the template variables of the lines; None if no trial has a searched setting.

    Args:
        ranked: trials with a score, best first.
        metric: name of the score.
        mode: whether a lower (min) or a higher (max) score is better.
        log_keys: keys of the settings with a logarithmic scale.
    """
    keys = parameter_keys(ranked)
    if not keys:
        return None
    scores = [trial.best(mode) or 0.0 for trial in ranked]
    scales = [_scale([trial.point[key] for trial in ranked if key in trial.point], key in log_keys) for key in keys]
    score_axis = axis_of(scores, is_log=mode == "min" and 0 < 30 * min(scores) < max(scores), is_tight=True)
    rows = [*zip(keys, scales, strict=True), (metric, _Numbers(score_axis))]
    lines = []
    for rank, (trial, score) in enumerate(zip(ranked[:_MOST_LINES], scores, strict=False)):
        shares = [scale.share(trial.point[key]) if key in trial.point else None for key, scale in rows[:-1]]
        quality = score_axis.share(score)
        lines.append(
            {
                "path": _path([*shares, score_axis.share(score)], len(rows)),
                "name": trial.name,
                "quality": round(100 * (quality if mode == "max" else 1 - quality)),
                "is_best": rank == 0,
                "is_running": trial.state == "running",
            }
        )
    return {
        "rows": [
            {"label": label, "ticks": [(round(100 * share, 2), text) for share, text in scale.labels()]}
            for label, scale in rows
        ],
        "lines": lines[::-1],  # the best is drawn last, on top
        "num_left_out": max(0, len(ranked) - _MOST_LINES),
    }


class _Numbers:
    """A scale of numbers."""

    def __init__(self, axis: Axis) -> None:
        self._axis = axis

    def share(self, value: Value) -> float:
        return self._axis.share(float(value or 0))

    def labels(self) -> list[tuple[float, str]]:
        return self._axis.labels()


class _Categories:
    """A scale of names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def share(self, value: Value) -> float:
        return (self._names.index(value_text(value)) + 0.5) / len(self._names)

    def labels(self) -> list[tuple[float, str]]:
        return [((number + 0.5) / len(self._names), shorten(name)) for number, name in enumerate(self._names)]


def _scale(values: Sequence[Value], is_log: bool) -> _Numbers | _Categories:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return _Categories(sorted({value_text(value) for value in values}))
    low, high = min(numbers), max(numbers)
    axis = axis_of(numbers, is_log=low > 0 and (is_log or high > 10 * low), is_tight=True)
    distinct = sorted(set(numbers))
    gaps = [axis.share(after) - axis.share(before) for before, after in pairwise(distinct)]
    if len(distinct) <= _MOST_TICKS and min(gaps, default=1) > _LEAST_TICK_GAP:
        axis = replace(axis, ticks=tuple(distinct))
    return _Numbers(axis)


def _path(shares: Sequence[float | None], num_rows: int) -> str:
    """Return the path of a trial from row to row, interrupted where it lacks a setting."""
    parts, command = [], "M"
    for row, share in enumerate(shares):
        if share is None or not math.isfinite(share):
            command = "M"
            continue
        parts.append(f"{command}{1000 * share:.1f} {1000 * (row + 0.5) / num_rows:.1f}")
        command = "L"
    return "".join(parts)


def shorten(text: str, most: int = 20) -> str:
    """Return a text shortened to fit a chart; both ends stay, because names often differ only at their end."""
    text, half = " ".join(text.split()), most // 2
    return text if len(text) <= most else f"{text[: half - 1]}…{text[-half:]}"
