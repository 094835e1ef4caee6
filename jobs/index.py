"""Use WebDataset tars in place: scan them once, and write a shard set of a manifest and a vocabulary that names them.

The tars are neither changed nor copied; train, extract, evaluate, caption, verify, inspect and export read them where
they are, and keep those at a URL in the node's cache. The same command again scans only what is missing.

Examples:
    captioning index laion/ laion-shards --split-by 95:5                      # img2dataset's output, a folder
    captioning index 's3://bucket/cc3m/{00000..00331}.tar' s3://bucket/cc3m-shards --split-by 98:1:1
    captioning index 'train=https://host/train-{000..099}.tar' val=https://host/val-000.tar my-shards
    captioning index tars/ my-shards --captions json.alt_text                 # a field of each sample's .json
"""

import contextlib
import itertools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from captioning.bounds import outside, raise_mistakes
from cluster.config import ClusterConfig
from cluster.data.conversion_config import IndexConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.progress_bars import counting
from shards.storage.location import parse_location

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexJob(IndexConfig):
    """The tars to use, and the shard set to write."""

    locations: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[SPLIT=]TARS ... SHARDS")]
    """Tars, folders of tars, or URLs of these, with braces ({000..099}, {a,b}) and globs (*), each with the name of its
    split before it where it is not train; last, the shard set to write: a folder, or any URL that fsspec supports."""
    num_workers: int | None = None
    """Number of tars scanned at once, each by a Ray actor; 0 scans them one by one, without Ray. If not given, one for
    each CPU, and 0 for so few tars that Ray would take longer to start."""
    address: str | None = None
    """Address of a Ray cluster; if not given, RAY_ADDRESS; without either, Ray starts on this machine."""

    def __post_init__(self) -> None:
        """Check the bounds, and that there is something to index."""
        IndexConfig.__post_init__(self)  # dataclasses with slots have no super()
        raise_mistakes(outside(self, num_workers=(0, 100_000)))
        if (
            isinstance(self.locations, tuple) and len(self.locations) < 2
        ):  # tyro first passes a mark for what is missing
            raise_mistakes(["give the tars, then the shard set to write, as in: captioning index tars/ my-shards"])

    @property
    def tars(self) -> tuple[str, ...]:
        """Return the addresses of the tars."""
        return self.locations[:-1]

    @property
    def shards(self) -> Path | str:
        """Return the shard set to write."""
        return parse_location(self.locations[-1])


def main(invocation: Invocation[IndexJob]) -> None:
    """Scan the missing tars and write the manifest, or list them with ``--dry-run``."""
    from cluster.data.output import writing_to
    from cluster.data.tars.indexing import default_scanners, index
    from cluster.data.tars.plan import plan_index

    job = invocation.settings
    with contextlib.nullcontext() if invocation.dry_run else writing_to(job.shards):
        plan = plan_index(job.tars, job.shards, job)
        counts = ", ".join(f"{len(tars)} {split}" for split, tars in plan.splits.items())
        logger.info("tars %s; captions in %s; %d to be scanned", counts, plan.captions, len(plan.missing))
        if list(plan.splits) == ["train"]:
            logger.info(
                "all tars are train; --split-by 95:5 deals whole tars to train and val, or write val= before some"
            )
        if invocation.dry_run:
            for task in plan.missing:
                logger.info("would scan %s", task.location)
            if invocation.json:
                write_json({split: list(tars) for split, tars in plan.splits.items()})
            return
        cluster = ClusterConfig(address=job.address)
        num_workers = default_scanners(plan, cluster) if job.num_workers is None else job.num_workers
        with counting() as show:
            num_done = itertools.count(1)
            manifest = index(
                plan,
                num_workers=num_workers,
                cluster=cluster,
                progress=lambda: show("tars", next(num_done), len(plan.missing)),
            )
    for one in manifest.set_aside:
        logger.warning("left out %s: %s", one.key, one.reason)
    kept = ", ".join(f"{count} {split}" for split, count in manifest.splits.items())
    logger.info("%s: images %s; digest %s", job.shards, kept, manifest.digest[:12])
    log_next("train", "--shards", job.shards, "--name", "NAME")
    if invocation.json:
        write_json({"shards": job.shards, "digest": manifest.digest, "splits": manifest.splits})


JOB = Job(name="index", settings=IndexJob, run=main, description=__doc__)
