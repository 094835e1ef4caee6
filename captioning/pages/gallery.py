"""The gallery: an HTML page of images with captions and scores, and of training curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captioning.pages.html import ACCENT, Theme, render_chart, style_axes, write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_JPEG_START = b"\xff\xd8\xff"
_MOST_MARKED_POINTS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryItem:
    """One image with its captions.

    Raises:
        ValueError: ``jpeg`` is not JPEG data, there is no caption, or a log-probability is missing.
    """

    name: str
    """Name shown below the image: a file name or a key."""
    jpeg: bytes
    """Content of a JPEG file; it is embedded unchanged, so shrink it first."""
    captions: Sequence[str]
    """Captions, best first; the first is also the alternative text."""
    log_probabilities_nats: Sequence[float] = ()
    """Log-probability of each caption, in nats; empty if unknown."""
    references: Sequence[str] = ()
    """Reference captions, shown in a section that is closed at first."""
    scores: Sequence[tuple[str, str]] = ()
    """Name and value of each score, such as ("CIDEr-D", "1.02")."""
    verdict: bool | None = None
    """Whether the first caption is true of the image; None if unknown."""

    def __post_init__(self) -> None:
        """Check the image and the captions."""
        if not self.jpeg.startswith(_JPEG_START):
            raise ValueError(
                f"{self.name} starts with {self.jpeg[:4]!r}, which is not JPEG: "
                "a browser would show a broken picture; encode it as JPEG"
            )
        if not self.captions:
            raise ValueError(
                f"{self.name} has no caption, so there is nothing to show; give a caption, or leave the image out"
            )
        if len(self.log_probabilities_nats) not in (0, len(self.captions)):
            raise ValueError(
                f"{self.name} has different numbers of captions ({len(self.captions)}) and log-probabilities "
                f"({len(self.log_probabilities_nats)}); give one per caption, or none"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A quantity over the steps of a training; a value that is not finite leaves a gap."""

    name: str
    """Name of the quantity with its unit, such as "loss (nats per word)"."""
    points: Sequence[tuple[float, float]]
    """(step, value) of each point, in order; at least one value is finite."""

    def __post_init__(self) -> None:
        """Check that there is something to draw."""
        if not any(math.isfinite(value) for _, value in self.points):
            raise ValueError(
                f"curve {self.name!r} has no finite value (points: {len(self.points)}), so there is nothing to draw; "
                "leave it out"
            )


def write_gallery(
    path: Path,
    items: Sequence[GalleryItem],
    *,
    title: str,
    summary: Sequence[tuple[str, str]] = (),
    curves: Sequence[Curve] = (),
) -> None:
    """Write a page of a summary, training curves, and images with their captions.

    The images are embedded as base64, at about 4/3 of their size. All text is escaped, and equal inputs give equal
    bytes.

    Args:
        path: HTML file to write, replaced atomically if it exists; its folder is created if absent.
        items: images in the order to show them.
        title: heading of the page.
        summary: name and value of each figure at the top.
        curves: curves in the order to show them, one chart each.
    """
    charts = [render_chart(_describe(curve), lambda theme, curve=curve: _draw(curve, theme)) for curve in curves]
    values = {"title": title, "summary": summary, "charts": charts, "items": items}
    write_page(path, "gallery.html.jinja", values)


def _describe(curve: Curve) -> str:
    finite = [(step, value) for step, value in curve.points if math.isfinite(value)]
    (first_step, first), (last_step, last) = finite[0], finite[-1]
    return f"{curve.name}: {first:.4g} at step {first_step:g}, {last:.4g} at step {last_step:g}"


def _draw(curve: Curve, theme: Theme) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.9), layout="constrained")  # not by pyplot, because it keeps figures in global state
    axes = figure.add_subplot()
    marker = "o" if len(curve.points) <= _MOST_MARKED_POINTS else ""
    axes.plot(*zip(*curve.points, strict=True), color=ACCENT, linewidth=1.8, marker=marker, markersize=4)
    style_axes(axes, theme, title=curve.name, x_label="step")
    return figure
