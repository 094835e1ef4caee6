"""One HTML page of pictures, captions, scores and curves that needs nothing beside it: no server, script or network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captioning.pages.html import ACCENT, Theme, chart, style_axes, write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_JPEG_START = b"\xff\xd8\xff"
_MOST_MARKED_POINTS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryItem:
    """One picture and what was said about it.

    Raises:
        ValueError: ``jpeg`` is not JPEG data, there is no caption, or a log-probability is missing.
    """

    name: str
    """Shown under the picture: a file name or a key."""
    jpeg: bytes
    """A whole JPEG file; it is embedded as it is, so shrink it first."""
    captions: Sequence[str]
    """Best first; the first is also the alternative text."""
    log_probabilities_nats: Sequence[float] = ()
    """One a caption, or none at all."""
    references: Sequence[str] = ()
    """What people wrote; folded away until asked for."""
    scores: Sequence[tuple[str, str]] = ()
    """Name and value of what else is known, such as ("CIDEr-D", "1.02")."""
    verdict: bool | None = None
    """Whether someone found the first caption true of the picture; None if nobody judged it."""

    def __post_init__(self) -> None:
        """Refuse what would show as a broken picture or without a caption."""
        if not self.jpeg.startswith(_JPEG_START):
            raise ValueError(
                f"{self.name} starts with {self.jpeg[:4]!r}, which is not JPEG: "
                "a browser would show a broken picture; encode it as JPEG"
            )
        if not self.captions:
            raise ValueError(f"{self.name} has no caption: a picture is shown for its caption; leave it out")
        if len(self.log_probabilities_nats) not in (0, len(self.captions)):
            raise ValueError(
                f"{self.name} has {len(self.log_probabilities_nats)} log-probabilities for {len(self.captions)} "
                "captions; give one a caption, or none"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A quantity over training; a value that is not finite leaves a gap."""

    name: str
    """Names the quantity with its unit: "loss (nats per word)"."""
    points: Sequence[tuple[float, float]]
    """(step, value), in the order to join them; at least one."""

    def __post_init__(self) -> None:
        """Refuse what would draw an empty chart."""
        if not any(math.isfinite(value) for _, value in self.points):
            raise ValueError(
                f"curve {self.name!r} has no finite value in {len(self.points)} points: nothing to draw; leave it out"
            )


def write_gallery(
    path: Path,
    items: Sequence[GalleryItem],
    *,
    title: str,
    summary: Sequence[tuple[str, str]] = (),
    curves: Sequence[Curve] = (),
) -> None:
    """Write a page that shows each picture with its captions, below a summary and training curves.

    The page holds its pictures, about 4/3 of their size. All text is escaped, and the same input gives the same bytes.

    Args:
        path: the HTML file; replaced at once if it exists, its folder made if it does not.
        items: pictures in the order to show them.
        title: heading of the page.
        summary: name and value of each figure to show at the top.
        curves: one chart each.
    """
    charts = [chart(_describe(curve), lambda theme, curve=curve: _draw(curve, theme)) for curve in curves]
    values = {"title": title, "summary": summary, "charts": charts, "items": items}
    write_page(path, "gallery.html.jinja", values)


def _describe(curve: Curve) -> str:
    finite = [(step, value) for step, value in curve.points if math.isfinite(value)]
    (first_step, first), (last_step, last) = finite[0], finite[-1]
    return f"{curve.name}: {first:.4g} at step {first_step:g}, {last:.4g} at step {last_step:g}"


def _draw(curve: Curve, theme: Theme) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.9), layout="constrained")  # of its own: pyplot's state stays as it is
    axes = figure.add_subplot()
    marker = "o" if len(curve.points) <= _MOST_MARKED_POINTS else ""
    axes.plot(*zip(*curve.points, strict=True), color=ACCENT, linewidth=1.8, marker=marker, markersize=4)
    style_axes(axes, theme, title=curve.name, x_label="step")
    return figure
