"""Results of the demonstration: a table on the terminal, and the same with all scenes as a page."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config import HomeConfig
from cluster.job_progress import duration
from jobs.console.tables import show_table

if TYPE_CHECKING:
    from captioning.pages.gallery import GalleryItem
    from cluster.evaluation.evaluate import Evaluation
    from cluster.registry.models import ResolvedModel

logger = logging.getLogger(__name__)


def demo_rows(results: Mapping[str, Any], num_true: int, num_unseen: int) -> list[tuple[str, str]]:
    """Return the name and value of each result.

    Args:
        results: the demonstration's JSON document.
        num_true: number of unseen scenes with a true caption.
        num_unseen: number of unseen scenes.
    """
    rows = [("true captions of unseen scenes", f"{num_true} of {num_unseen}")]
    rows += [(f"{name} on val", f"{score:.3f}") for name, score in results["scores"].items()]
    rows += [("promotion", results["promotion"])]
    return rows + [(part, duration(seconds)) for part, seconds in results["seconds"].items()]


def demo_commands(picture: Path, home: Path) -> list[tuple[str, str]]:
    """Return what each command to go on with does, and the command, for the current folder."""
    at = "" if HomeConfig().home.absolute() == home else f" --home {_short(home)}"
    return [
        ("caption one of these scenes", f"captioning caption {_short(picture)} --model models:/demo@champion{at}"),
        ("runs, models and these pages in MLflow", f"captioning ui{at}"),
        ("registered versions", f"captioning models{at}"),
    ]


def _short(path: Path) -> str:
    """Return a path for a shell, relative to the current folder if it is below."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def write_demo_page(
    page: Path,
    items: "list[GalleryItem]",
    evaluation: "Evaluation",
    model: "ResolvedModel",
    rows: Sequence[tuple[str, str]],
    commands: Sequence[tuple[str, str]],
) -> None:
    """Write the page of the demonstration.

    Args:
        page: HTML file to write.
        items: unseen scenes with their captions.
        evaluation: evaluation of the model on the validation split.
        model: the champion.
        rows: results, as ``demo_rows`` returns them.
        commands: commands to go on with, as ``demo_commands`` returns them.
    """
    from captioning.pages.gallery import GalleryPage, write_gallery
    from captioning.pages.score_table import score_rows

    num_scores = len(evaluation.scores)
    content = GalleryPage(
        title="Captions of unseen scenes",
        kicker="Demonstration",
        lead=f"By {model}.",
        summary=[
            rows[0],
            (f"CIDEr-D on {evaluation.split}", f"{evaluation.scores['CIDEr-D']:.3f}"),
            rows[num_scores + 1],
        ],
        scores=score_rows(evaluation.scores, evaluation.intervals),
        facts=[("Time of each part", rows[num_scores + 2 :])],
        commands=[(f"{what[:1].upper()}{what[1:]}", command) for what, command in commands],
    )
    write_gallery(page, items, content)


def report_demo(page: Path, rows: Sequence[tuple[str, str]], commands: Sequence[tuple[str, str]]) -> None:
    """Show the results as a table, and where to go on."""
    show_table("Demonstration", ("what", "result"), rows)
    for what, text in [("page of scenes and captions", str(page)), *commands]:
        logger.info("%-40s %s", f"{what}:", text)
