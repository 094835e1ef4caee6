"""Caption each image of a split once, and score the captions with BLEU-1 to BLEU-4, ROUGE-L, CIDEr-D and METEOR.

MODEL is models:/NAME@alias, models:/NAME/VERSION, runs:/ID (that run's best checkpoint), or the folder of a checkpoint
or run.

Examples:
    captioning evaluate runs/training/first --shards data/coco-shards --split val --out results.json
    captioning evaluate models:/captioner@challenger --shards data/coco-shards --html page.html
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from captioning.bounds import outside, raise_mistakes
from captioning.config import BATCH_SIZES, Precision
from captioning.generation.config import GenerationConfig
from cluster.config import CacheConfig, TrackerConfig
from cluster.locations import Location
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.output_files import require_output_files
from jobs.console.progress_bars import counting
from jobs.console.tables import diversity_rows, show_table

if TYPE_CHECKING:
    from cluster.data.shard_set import ShardSet
    from cluster.evaluation.evaluate import Evaluation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateJob:
    """The model and the images to score it on."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Model to score, in one of the forms above."""
    shards: Location
    """Shard set: a folder, or any URL that fsspec supports."""
    split: str = "val"
    """Split of the shard set."""
    out: Path | None = None
    """JSON file for the captions, in COCO's results format; not written if not given."""
    html: Path | None = None
    """HTML file for a page of the images with captions, scores and references; not written if not given."""
    generation: Annotated[GenerationConfig, tyro.conf.arg(name="")] = field(default_factory=GenerationConfig)
    batch_size: int = 32
    """Images per batch."""
    precision: Precision | None = None
    """Precision of the computation; if not given, the one in which a registered version serves, else fp32."""
    storage: Annotated[CacheConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=CacheConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(outside(self, batch_size=BATCH_SIZES))


def main(invocation: Invocation[EvaluateJob]) -> None:
    """Caption the split, and store the scores with the model."""
    job = invocation.settings
    from cluster.data.shard_set import ShardSet
    from cluster.promotion.pages import write_pages
    from cluster.registry.models import resolve_model, resolve_to_read
    from cluster.registry.scores import evaluate_and_log
    from cluster.tracking.client import connect

    require_output_files(html=job.html, out=job.out)
    shard_set = ShardSet(job.shards, cache_gib=job.storage.cache_gib)
    num_images = sum(shard.num_samples for shard in shard_set.manifest.of_split(job.split))
    if invocation.dry_run:
        model = resolve_to_read(job.model, lambda: connect(job.tracking, job.storage, only_reads=True))
        logger.info("model %s: %s", job.model, model)
        search = job.generation.describe()
        logger.info("would caption %d images of split %s with %s", num_images, job.split, search)
        if invocation.json:
            write_json({"num_images": num_images, "split": job.split, "checkpoint": model.folder})
        return
    client = connect(job.tracking, job.storage)
    model = resolve_model(job.model, client)
    model = replace(model, precision=job.precision or model.precision)
    logger.info("model %s: %s", job.model, model)
    with counting() as show:
        evaluation = evaluate_and_log(
            model,
            shard_set,
            job.split,
            client,
            storage=job.storage,
            generation=job.generation,
            batch_size=job.batch_size,
            progress=lambda done: show("images", done, num_images),
        )
    if job.out:
        evaluation.save_results(job.out)
    if page := write_pages(model, evaluation, shard_set, client, job.storage):
        logger.info("page: %s", page)
    if job.html:
        _write_page(job.html, evaluation, shard_set, str(model))
    _show_scores(evaluation)
    if job.model.startswith("models:/"):
        name = job.model.removeprefix("models:/").partition("@")[0].partition("/")[0]
        log_next("promote", name, "--shards", job.shards)
    else:
        log_next("register", job.model, "NAME")
    if invocation.json:
        write_json(evaluation.summary() | {"model": str(model), "checkpoint": model.folder})


def _show_scores(evaluation: "Evaluation") -> None:
    from captioning.data.tokenizers import find_tokenizer
    from captioning.evaluation.behaviour import diversity_of
    from captioning.evaluation.bootstrap import CONFIDENCE

    rows = [
        (name, f"{score:.4f}", "{:.4f} to {:.4f}".format(*evaluation.intervals[name]))
        for name, score in evaluation.scores.items()
    ]
    show_table(evaluation.title, ("score", "value", f"{100 * CONFIDENCE:g} % interval"), rows)
    diversity = diversity_of(evaluation.captions.values(), find_tokenizer(evaluation.tokenizer))
    show_table("what the captions are like", ("what", "value"), diversity_rows(diversity.as_dict()))


def _write_page(path: Path, evaluation: "Evaluation", shard_set: "ShardSet", model: str) -> None:
    from captioning.pages.gallery import GalleryPage, write_gallery
    from captioning.pages.score_table import score_rows
    from cluster.evaluation.gallery import evaluation_items

    page = GalleryPage(
        title=f"Evaluation on {evaluation.split}",
        kicker="Evaluation",
        lead=f"{model}, on {evaluation.title}, with {evaluation.generation.describe()}.",
        num_pictures=len(evaluation.captions),
        order="best first",
        scores=score_rows(evaluation.scores, evaluation.intervals),
    )
    write_gallery(path, evaluation_items(evaluation, shard_set), page)
    logger.info("wrote %s", path)


JOB = Job(name="evaluate", settings=EvaluateJob, run=main, description=__doc__, loads=("torch", "mlflow"))
