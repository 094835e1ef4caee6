"""Fetch COCO's official archives.

Examples:
    captioning download coco2017 coco                  # 20 GB, then captioning convert coco shards
    captioning download coco2017 coco --splits val     # 1 GB
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import tyro

from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import transferring
from shards.archives.download import Progress, download, plan_download

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadJob:
    """What to fetch."""

    dataset: tyro.conf.Positional[str]
    """coco2017 or coco2014."""
    folder: tyro.conf.Positional[Path]
    """Where to unpack it."""
    splits: tuple[str, ...] = ("train", "val")
    """Which splits."""
    base_url: str | None = None
    """A mirror of the official server."""
    keep_archives: bool = False
    """Keep the zip files after unpacking them."""


def main(invocation: Invocation[DownloadJob]) -> None:
    """Download what is missing."""
    job = invocation.settings
    plan = plan_download(
        job.dataset, job.folder, splits=job.splits, base_url=job.base_url, keep_archives=job.keep_archives
    )
    logger.info(
        "%s into %s: %.1f GB to fetch, %.1f GB of disk needed, %.1f GB free; done already: %s",
        job.dataset,
        job.folder,
        plan.bytes_to_fetch / 1e9,
        plan.bytes_needed / 1e9,
        plan.free_bytes / 1e9,
        ", ".join(plan.done) or "nothing",
    )
    if not invocation.dry_run:
        with transferring() as bars:
            tasks = {}

            def show(progress: Progress) -> None:
                label = f"{progress.step} {progress.name}"
                if label not in tasks:
                    tasks[label] = bars.add_task(label, total=progress.total_bytes)
                bars.update(tasks[label], completed=progress.done_bytes)

            download(plan, progress=show)
    if invocation.json:
        archives = [str(archive.path) for archive in plan.archives]
        write_json({"folder": job.folder, "archives": archives, "bytes_to_fetch": plan.bytes_to_fetch})


JOB = Job(name="download", settings=DownloadJob, run=main, description=__doc__)
