"""Caption a split, each image once, and score the captions: BLEU-1..4, ROUGE-L, CIDEr-D.

MODEL is models:/NAME@alias, models:/NAME/VERSION, runs:/ID (its best checkpoint), or a folder of a checkpoint or run.

Examples:
    captioning evaluate runs/training/first --shards shards --split val --out results.json
    captioning evaluate models:/captioner@challenger --shards shards
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cluster.config import Location, StorageConfig, TrackingConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import counting, show_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateJob:
    """What to score."""

    model: tyro.conf.Positional[str]
    """The model."""
    shards: Location
    """The shard set: a folder, or any URL that fsspec reaches."""
    split: str = "val"
    """Which split."""
    out: Path | None = None
    """Write the captions to this JSON file, in the format of COCO results."""
    beam_size: int = 3
    """Beginnings of a caption held at every step; 1 is greedy."""
    batch_size: int = 32
    """Images at once."""
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def main(invocation: Invocation[EvaluateJob]) -> None:
    """Caption the split, and keep the scores with the model."""
    job = invocation.settings
    from captioning.evaluation.bootstrap import CONFIDENCE
    from cluster.data.shard_set import ShardSet
    from cluster.registry.models import resolve_model
    from cluster.registry.scores import evaluate_and_log
    from cluster.tracking.client import connect

    shard_set = ShardSet(job.shards, cache_gib=job.storage.cache_gib)
    num_images = sum(shard.num_samples for shard in shard_set.manifest.of_split(job.split))
    client = connect(job.tracking, job.storage)
    model = resolve_model(job.model, client)
    logger.info("%s is %s", job.model, model)
    if invocation.dry_run:
        logger.info("would caption %d images of %s with a beam of %d", num_images, job.split, job.beam_size)
        if invocation.json:
            write_json({"num_images": num_images, "split": job.split, "checkpoint": model.folder})
        return
    with counting() as bars:
        bar = bars.add_task("images", total=num_images)
        evaluation = evaluate_and_log(
            model,
            shard_set,
            job.split,
            client,
            storage=job.storage,
            beam_size=job.beam_size,
            batch_size=job.batch_size,
            progress=lambda done: bars.update(bar, completed=done),
        )
    if job.out:
        evaluation.save_results(job.out)
    rows = [
        (name, f"{score:.4f}", "{:.4f} to {:.4f}".format(*evaluation.intervals[name]))
        for name, score in evaluation.scores.items()
    ]
    show_table(f"{num_images} images of {job.split}", ("score", "value", f"{100 * CONFIDENCE:g} % interval"), rows)
    if invocation.json:
        write_json(evaluation.summary() | {"model": str(model), "checkpoint": model.folder})


JOB = Job(name="evaluate", settings=EvaluateJob, run=main, description=__doc__)
