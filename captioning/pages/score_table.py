"""Rows of a table of scores with confidence intervals, drawn as bars from 0 to the largest value."""

import math
from collections.abc import Mapping
from typing import Any


def score_rows(
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    rival: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Return the template variables of each row.

    Args:
        scores: value of each score, by name.
        intervals: lowest and highest value of each score, by name; a score may have none.
        rival: values of the model to compare with; None for none.
    """
    rival = rival or {}
    rows = []
    for name, score in scores.items():
        low, high = intervals.get(name, (score, score))
        other = rival.get(name)
        top = max([1.0, *(one for one in (high, other) if one is not None and math.isfinite(one))])
        rows.append(
            {
                "name": name,
                "value": f"{score:.3f}",
                "interval": f"{low:.3f} to {high:.3f}" if name in intervals else "",
                "rival": "" if other is None else f"{other:.3f}",
                "at": _percent(score, top),
                "bar": (_percent(low, top), _percent(high - low, top)) if name in intervals else None,
                "rival_at": None if other is None else _percent(other, top),
            }
        )
    return rows


def _percent(value: float, top: float) -> float:
    return round(100 * min(1.0, max(0.0, value / top)), 2) if math.isfinite(value) else 0.0
