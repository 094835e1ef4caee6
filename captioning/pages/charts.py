"""Line charts, drawn as SVG in the page; a script of the page shows the values under the pointer.

The colours are the page's own, and so follow a light or dark theme.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from captioning.pages.axes import Axis, axis_of

Colour = Literal["s0", "s1", "s2", "s3", "weak", "best", "quiet"]
SERIES: tuple[Colour, ...] = ("s0", "s1", "s2", "s3")
"""Colours of the curves of a chart, in order."""
_MOST_POINTS, _MOST_DOTS = 240, 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A quantity over the epochs or steps of a training; a value that is not finite leaves a gap.

    Raises:
        ValueError: no value is finite.
    """

    name: str
    """Name in the legend; empty for none."""
    points: Sequence[tuple[float, float]]
    """(x, value) of each point, in order; at least one value is finite."""
    intervals: Sequence[tuple[float, float, float]] = ()
    """(x, lowest, highest) of each confidence interval, in order."""
    colour: Colour | None = None
    """Colour of the curve; None for the next one of the chart."""
    has_dots: bool = True
    """Whether each point is marked, if there are not too many of them."""
    trial: str = ""
    """Name of the trial that the curve belongs to; the page marks it together with the trial's row."""

    def __post_init__(self) -> None:
        """Check that there is something to draw."""
        if not any(math.isfinite(value) for _, value in self.points):
            raise ValueError(
                f"curve {self.name!r} has no finite value (points: {len(self.points)}), so there is nothing to draw; "
                "leave it out"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Curves over the same axis."""

    title: str
    curves: Sequence[Curve]
    """Curves from back to front; at least one."""
    unit: str = ""
    x_label: str = "epoch"
    steps_per_x: float = 0.0
    """Steps per unit of the x axis, so that the page can name the step of a point; 0 if unknown."""
    is_log: bool = False
    """Whether the values are on a logarithmic scale, if all are positive."""


def thin(points: Sequence[tuple[float, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """Return points with at most ``most`` of them: the means of equal parts; a value that is not finite stays a gap.

    Args:
        points: (x, value) of each point, in order.
        most: largest number of points to return.
    """
    if len(points) <= most:
        return [*points]
    means = []
    for number in range(most):
        part = points[len(points) * number // most : len(points) * (number + 1) // most]
        finite = [(x, value) for x, value in part if math.isfinite(value)]
        if finite:
            means.append((part[-1][0], math.fsum(value for _, value in finite) / len(finite)))
        else:
            means.append((part[-1][0], math.nan))
    return means


def chart_values(chart: Chart) -> dict[str, Any]:
    """Return the template variables of a chart."""
    curves = [_Drawn(curve, curve.colour or SERIES[n % len(SERIES)]) for n, curve in enumerate(chart.curves)]
    x = axis_of((x for curve in curves for x, _ in curve.finite), is_tight=True)
    y = axis_of((value for curve in curves for value in curve.extent), is_log=chart.is_log)
    legend = [{"name": one.curve.name, "colour": one.colour} for one in curves if one.curve.name]
    return {
        "title": chart.title,
        "unit": chart.unit,
        "x_label": chart.x_label,
        "legend": legend if len(legend) > 1 else [],
        "description": describe_chart(chart),
        "x_ticks": [(round(1000 * share, 1), text) for share, text in x.labels()],
        "y_ticks": [(round(1000 - 1000 * share, 1), text) for share, text in y.labels()],
        "shapes": [shape for curve in curves for shape in curve.shapes(x, y)],
        "data": _data(chart, curves, x, y),
    }


def describe_chart(chart: Chart) -> str:
    """Return what a chart shows, in words: the first and the last value of each named curve."""
    parts = []
    for curve in chart.curves:
        finite = [(x, value) for x, value in curve.points if math.isfinite(value)]
        (first_x, first), (last_x, last) = finite[0], finite[-1]
        name = f"{curve.name}: " if curve.name else ""
        if curve.name or len(chart.curves) == 1:
            parts.append(f"{name}{first:.4g} at {chart.x_label} {first_x:.4g}, {last:.4g} at {last_x:.4g}")
    return f"{chart.title}{f' ({chart.unit})' if chart.unit else ''}; {'; '.join(parts)}"


class _Drawn:
    """A curve as it is drawn."""

    def __init__(self, curve: Curve, colour: Colour) -> None:
        self.curve, self.colour = curve, colour
        self.points = thin(curve.points)
        self.finite = [(x, value) for x, value in self.points if math.isfinite(value)]
        self.intervals = [one for one in curve.intervals if all(map(math.isfinite, one))]

    @property
    def extent(self) -> Iterable[float]:
        """Return values that the axis must hold."""
        yield from (value for _, value in self.finite)
        yield from (value for _, low, high in self.intervals for value in (low, high))

    def shapes(self, x: Axis, y: Axis) -> Iterable[dict[str, str]]:
        """Yield the shapes of the curve, from back to front."""
        shape = {"colour": self.colour, "trial": self.curve.trial}
        if len(self.intervals) > 1:
            edge = [(at, high) for at, _, high in self.intervals] + [(at, low) for at, low, _ in self.intervals[::-1]]
            yield shape | {"kind": "band", "path": f"{_path(edge, x, y)}Z"}
        else:
            path = "".join(_path([(at, low), (at, high)], x, y) for at, low, high in self.intervals)
            if path:
                yield shape | {"kind": "curve", "path": path}
        yield shape | {"kind": "curve", "path": _path(self.points, x, y)}
        if len(self.finite) == 1 or (self.curve.has_dots and len(self.finite) <= _MOST_DOTS):
            # A line without length and with round ends is a dot that keeps its form when the drawing is stretched.
            dots = "".join(f"{_path([point], x, y)}h0" for point in self.finite)
            yield shape | {"kind": "dots", "path": dots}


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """Return the SVG path of a curve on a drawing of 1000 by 1000, interrupted where a value is not finite."""
    parts, command = [], "M"
    for at, value in points:
        if math.isfinite(value):
            parts.append(f"{command}{_short(1000 * x.share(at))} {_short(1000 - 1000 * y.share(value))}")
            command = "L"
        else:
            command = "M"
    return "".join(parts)


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _data(chart: Chart, curves: Sequence[_Drawn], x: Axis, y: Axis) -> str:
    """Return what the page's script needs to show the values under the pointer, as JSON."""
    content = {
        "x": [x.low, x.high],
        "y": [y.low, y.high, y.is_log],
        "x_label": chart.x_label,
        "steps": chart.steps_per_x,
        "curves": [
            {"name": one.curve.name or one.curve.trial, "colour": one.colour, "points": _texts(one)} for one in curves
        ],
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _texts(drawn: _Drawn) -> list[tuple[float | str, ...]]:
    ranges = {at: f"{low:.3g} to {high:.3g}" for at, low, high in drawn.intervals}
    return [
        (_rounded(at), _rounded(value), *([f"{value:.3g} ({ranges[at]})"] if at in ranges else []))
        for at, value in drawn.finite
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
