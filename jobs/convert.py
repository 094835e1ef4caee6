"""Convert photographs with captions to a shard set. The same command again writes only what is missing.

Examples:
    captioning convert data/coco data/coco-shards                             # images/ or <split>2017/, annotations/
    captioning convert data/coco data/coco-shards --karpathy dataset_coco.json    # the split of Karpathy and Li
    captioning convert photos data/photos-shards --split-by 90:5:5            # captions.csv, or dog.txt beside dog.jpg
    captioning convert photos data/photos-shards --dry-run                    # what was recognized; writes nothing
    captioning convert photos data/photos-shards --rebuild                    # pictures or captions have changed
"""

import contextlib
import itertools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from captioning.bounds import outside, raise_mistakes
from cluster.config import ClusterConfig
from cluster.data.conversion_config import ConversionConfig
from cluster.locations import Location
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.progress_bars import counting
from shards.manifest import Manifest
from shards.records import stale_shards

if TYPE_CHECKING:
    from cluster.data.conversion import ConversionPlan

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertJob(ConversionConfig):
    """What to convert, and how."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Folder of the images and captions, in one of the forms of --format."""
    shards: Annotated[tyro.conf.Positional[Location], tyro.conf.arg(metavar="SHARDS")]
    """Shard set to write: a folder, or any URL that fsspec supports."""
    num_workers: int | None = None
    """Number of shards written at once, each by a Ray actor; 0 writes them one by one, without Ray. If not given, one
    for each CPU, and 0 for so few images that Ray would take longer to start."""
    address: str | None = None
    """Address of a Ray cluster; if not given, RAY_ADDRESS; without either, Ray starts on this machine."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        ConversionConfig.__post_init__(self)  # dataclasses with slots have no super()
        raise_mistakes(outside(self, num_workers=(0, 100_000)))


def main(invocation: Invocation[ConvertJob]) -> None:
    """Write the missing shards and remove stale ones, or list both with ``--dry-run``."""
    manifest = run_conversion(invocation.settings, is_dry=invocation.dry_run)
    if not invocation.dry_run:
        log_next("train", "--shards", invocation.settings.shards, "--name", "NAME")
    if invocation.json:
        write_json({"shards": invocation.settings.shards, "digest": manifest.digest, "splits": manifest.splits})


def run_conversion(job: ConvertJob, *, is_dry: bool = False) -> Manifest:
    """Plan a conversion and carry it out.

    Args:
        job: settings of the conversion.
        is_dry: whether to only log the plan and write nothing.

    Returns:
        The manifest of the shard set; with ``is_dry``, the manifest of the shards that exist so far.
    """
    from cluster.data.output import writing_to

    with contextlib.nullcontext() if is_dry else writing_to(job.shards):
        return _plan_and_convert(job, is_dry=is_dry)


def _plan_and_convert(job: ConvertJob, *, is_dry: bool) -> Manifest:
    from cluster.data.conversion import convert, default_workers, plan_conversion

    plan = plan_conversion(job.source, job.shards, job)
    _log_source(plan, job, is_dry=is_dry)
    logger.info(
        "vocabulary of %d words of split %s, by tokenizer %s; %d shards, %d of them already written",
        len(plan.vocabulary),
        job.vocabulary_split,
        plan.vocabulary.tokenizer.name,
        len(plan.shards),
        len(plan.finished),
    )
    if plan.difference:
        logger.info("%s was made from other %s", job.shards, plan.difference)
    if is_dry:
        for shard in plan.missing:
            logger.info("would write %s/%s: %d images", job.shards, shard.name, len(shard.images))
        for name in stale_shards(plan.shards, plan.folder):
            logger.info("would remove %s/%s, which an earlier plan wrote", job.shards, name)
        return plan.manifest(plan.finished)
    cluster = ClusterConfig(address=job.address)
    num_workers = default_workers(plan, cluster) if job.num_workers is None else job.num_workers
    if plan.missing and num_workers:
        with counting() as show:
            num_done = itertools.count(len(plan.finished) + 1)
            manifest = convert(
                plan,
                num_workers=num_workers,
                cluster=cluster,
                progress=lambda record: show("shards", next(num_done), len(plan.shards)),
            )
    else:
        manifest = convert(plan, num_workers=0)
    set_aside = [*manifest.set_aside, *(one for shard in manifest.shards for one in shard.set_aside)]
    for one in set_aside:
        logger.warning("set aside %s: %s", one.key, one.reason)
    kept = ", ".join(f"{count} {split}" for split, count in manifest.splits.items())
    logger.info("%s: images %s; %d set aside; digest %s", job.shards, kept, len(set_aside), manifest.digest[:12])
    return manifest


def _log_source(plan: "ConversionPlan", job: ConvertJob, *, is_dry: bool) -> None:
    from cluster.data.source_summary import counts_text, duplicate_lines, summary_lines
    from shards.sources.splits import DEALT

    logger.info("%s is read as %s: images %s", job.source, plan.form, counts_text(plan.annotations.splits))
    if not plan.annotations.has_splits and job.split_by is None:
        logger.info("it has no splits, so all images are train; --split-by 90:5:5 deals them to train, val and test")
    ratio = job.split_by.split(":") if job.split_by and not job.splits else ()
    if none := [split for split, _ in zip(DEALT, ratio, strict=False) if split not in plan.annotations.splits]:
        lacking = " and ".join(none)
        logger.warning(
            "--split-by %s deals no image to %s; with so few, give a ratio such as 2:1", job.split_by, lacking
        )
    for line in summary_lines(plan) if is_dry else duplicate_lines(plan):
        logger.info("%s", line)


JOB = Job(name="convert", settings=ConvertJob, run=main, description=__doc__)
