"""The page of a run or version: curves, captions at each validation, scores of each picture, settings, lineage."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioning.pages.charts import Chart, chart_values
from captioning.pages.gallery import GalleryItem, Names, gallery_values, picture_values
from captioning.pages.html import write_page

_BYTES_OF_SAMPLE = 40_000
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A picture that the model captions at each validation."""

    name: str
    jpeg: bytes
    """Content of a JPEG file."""
    captions: Sequence[str]
    """Caption at each validation, in order."""
    references: Sequence[str] = ()
    """Reference captions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPage:
    """The content of a page."""

    title: str
    kicker: str
    """Kind of the page, above its heading."""
    lead: str = ""
    """Sentence below the heading."""
    summary: Pairs = ()
    """Name and value of each figure at the top."""
    scores: Sequence[dict[str, Any]] = ()
    """Rows of the table of scores, as ``score_rows`` returns them."""
    scores_note: str = ""
    """What the scores are on."""
    charts: Sequence[Chart] = ()
    steps: Sequence[int] = ()
    """Step of each validation of the samples."""
    samples: Sequence[Sample] = ()
    items: Sequence[GalleryItem] | None = None
    """Pictures with captions and scores, in the order to show them; None if the model is not evaluated."""
    num_pictures: int = 0
    """Number of pictures of which the items are a selection."""
    names: Names | None = None
    """Names of the two models, if the items have captions of a rival."""
    gallery_title: str = "Scores of each picture"
    gallery_note: str = ""
    pictures_first: bool = False
    """Whether the pictures come before the curves of the training."""
    facts: Sequence[tuple[str, Pairs]] = ()
    """Name of each group of settings, and its pairs of name and value."""
    evaluate_command: str = ""
    """Command that evaluates the model, if it is not evaluated."""
    commands: Pairs = field(default=())
    """What each command does, and the command, for the end of the page."""


def write_model_page(path: Path, page: ModelPage) -> None:
    """Write a page; all text is escaped, and equal inputs give equal bytes.

    Args:
        path: HTML file to write, replaced atomically if it exists; its folder is created if absent.
        page: content of the page.
    """
    values = {
        "title": page.title,
        "kicker": page.kicker,
        "lead": page.lead,
        "summary": page.summary,
        "scores": page.scores,
        "scores_note": page.scores_note,
        "rival": page.names.rival if page.names else "",
        "charts": [chart_values(chart) for chart in page.charts],
        "learning": _learning(page.samples, page.steps),
        "gallery": None
        if page.items is None
        else gallery_values(
            page.items,
            num_pictures=page.num_pictures,
            order="largest difference first" if page.names else "best first",
            names=page.names,
        ),
        "gallery_title": page.gallery_title,
        "gallery_note": page.gallery_note,
        "pictures_first": page.pictures_first,
        "facts": [(name, pairs) for name, pairs in page.facts if pairs],
        "evaluate_command": page.evaluate_command,
        "commands": page.commands,
    }
    write_page(path, "model.html.jinja", values)


def _learning(samples: Sequence[Sample], steps: Sequence[int]) -> dict[str, Any] | None:
    if not samples or not steps:
        return None
    labels = [f"step {step:,} · validation {number} of {len(steps)}" for number, step in enumerate(steps, start=1)]
    return {
        "labels": json.dumps(labels),
        "num_validations": len(steps),
        "last_step": f"{steps[-1]:,}",
        "cards": [_sample(sample, steps) for sample in samples],
    }


def _sample(sample: Sample, steps: Sequence[int]) -> dict[str, Any]:
    before = ("", *sample.captions)
    changes = [
        (f"{step:,}", caption)
        for step, caption, last in zip(steps, sample.captions, before, strict=False)
        if caption != last
    ]
    return picture_values(sample.name, sample.jpeg, most_bytes=_BYTES_OF_SAMPLE) | {
        "captions": json.dumps([*sample.captions]),
        "last": sample.captions[-1],
        "references": sample.references,
        "changes": changes,
    }
