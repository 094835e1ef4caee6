"""Fragments of HTML for notebooks, which show a result's ``_repr_html_`` below the cell that returns it."""

from collections.abc import Mapping, Sequence

from captioning.pages.gallery import GalleryItem
from captioning.pages.html import render


def captions_html(items: Sequence[GalleryItem]) -> str:
    """Return images side by side, each above its captions."""
    return render("notebook_captions.html.jinja", {"items": items})


def scores_html(
    title: str,
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    *,
    confidence: float,
) -> str:
    """Return a table of scores with their confidence intervals.

    Args:
        title: caption of the table.
        scores: value of each score, by name.
        intervals: lowest and highest value of each score, by name; a score may have none.
        confidence: level of the intervals, such as 0.95.
    """
    rows = [(name, score, intervals.get(name)) for name, score in scores.items()]
    return render("notebook_scores.html.jinja", {"title": title, "rows": rows, "percent": f"{100 * confidence:g}"})
