"""Score any captions against references, with intervals; with --against, compare them with others, paired.

RESULTS is COCO's results format, a list of {"image_id": ..., "caption": ...}, or a table (.jsonl, .csv, .tsv, .parquet)
with columns image_id and caption. REFERENCES is a captions file of COCO, such a table, or a shard set.

Examples:
    captioning score results.json captions_val2017.json
    captioning score results.csv data/coco-shards --split val --against others.json
    captioning score results.json captions_val2017.json --training captions_train2017.json
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import diversity_rows, show_table

if TYPE_CHECKING:
    from captioning.evaluation.bootstrap import Comparison
    from captioning.evaluation.metrics import CaptionScores


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreJob:
    """The captions to score, and their references."""

    results: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RESULTS")]
    """Captions to score, one an image."""
    references: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REFERENCES")]
    """References: a file of captions, or the folder of a shard set."""
    split: str = "val"
    """Split of the shard set."""
    against: Path | None = None
    """Captions of the same images by another model, to compare with; none if not given."""
    training: Path | None = None
    """Captions of the training images, in one of the forms of the references (split train of a shard set): the share of
    novel captions, which are none of these, is told; not told if not given."""
    tokenizer: Literal["auto", "ptb", "unicode", "whitespace"] = "auto"
    """How captions are split into words: ptb, as the COCO evaluation does; unicode, the same, with one word a character
    in scripts without spaces; whitespace, for captions that are segmented; auto, ptb or unicode by the script."""


def main(invocation: Invocation[ScoreJob]) -> None:
    """Score the captions, and compare them where wanted."""
    job = invocation.settings
    from captioning.data.tokenizers import choose_tokenizer, find_tokenizer
    from captioning.evaluation.behaviour import diversity_of
    from captioning.evaluation.bootstrap import CONFIDENCE, compare_scores, score_intervals
    from captioning.evaluation.meteor.scorer import open_meteor
    from captioning.evaluation.metrics import score_captions
    from cluster.evaluation.caption_files import read_references, read_results

    captions, references = read_results(job.results), read_references(job.references, job.split)
    others = read_results(job.against) if job.against else None
    tokenizer = (
        choose_tokenizer([one for found in references.values() for one in found])
        if job.tokenizer == "auto"
        else find_tokenizer(job.tokenizer)
    )
    training = read_references(job.training, "train").values() if job.training else None
    meteor = open_meteor((one for found in references.values() for one in found), tokenizer)
    scored = score_captions(captions, references, tokenizer=tokenizer, meteor=meteor)
    intervals = score_intervals(scored.images)
    known = None if training is None else (one for found in training for one in found)
    diversity = diversity_of(captions.values(), tokenizer, training=known).as_dict()
    differences: dict[str, Comparison] = {}
    if others is not None:
        other = score_captions(others, references, tokenizer=tokenizer, meteor=meteor)
        differences = compare_scores(scored.images, other.images)
    title = f"{len(scored.images)} images of {job.results}, words by tokenizer {tokenizer.name}"
    show_table(title, *_table(scored, intervals, differences, CONFIDENCE))
    show_table("what the captions are like", ("what", "value"), diversity_rows(diversity))
    if invocation.json:
        write_json(
            {
                "num_images": len(scored.images),
                "left_out": scored.left_out,
                "tokenizer": tokenizer.name,
                "scores": scored.as_dict(),
                "intervals": intervals,
                "differences": {name: asdict(one) for name, one in differences.items()},
                **diversity,
            }
        )


def _table(
    scored: "CaptionScores",
    intervals: "Mapping[str, tuple[float, float]]",
    differences: "Mapping[str, Comparison]",
    confidence: float,
) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    interval = f"{100 * confidence:g} % interval"
    columns = ("score", "value", interval, *(("difference", interval) if differences else ()))
    rows = []
    for name, value in scored.as_dict().items():
        row = (name, f"{value:.4f}", "{:.4f} to {:.4f}".format(*intervals[name]))
        if differences:
            found = differences[name]
            row += (f"{found.difference:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}")
        rows.append(row)
    return columns, rows


JOB = Job(name="score", settings=ScoreJob, run=main, description=__doc__, changes_nothing=True)
