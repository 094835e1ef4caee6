"""Download COCO's official archives and unpack them. The same command again downloads only what is missing.

Examples:
    captioning download coco2017 data/coco                  # 20 GB; next: captioning convert data/coco data/coco-shards
    captioning download coco2017 data/coco --splits val     # 1 GB
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.progress_bars import transferring
from shards.archives.download import DownloadPlan, download, plan_download
from shards.storage.lock import sole_writer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadJob:
    """The archives to download, and where to unpack them."""

    dataset: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATASET")]
    """Dataset to download: coco2017 or coco2014."""
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder to unpack it into."""
    splits: tuple[str, ...] = ("train", "val")
    """Splits to download."""
    base_url: str | None = None
    """URL of a mirror; the official server if not given."""
    keep_archives: bool = False
    """Keep the zip files after they are unpacked."""


def main(invocation: Invocation[DownloadJob]) -> None:
    """Download the missing archives, or say with ``--dry-run`` how much is missing."""
    job = invocation.settings
    plan = _plan(job)
    logger.info(
        "%s into %s: %.1f GB to download, %.1f GB of disk needed, %.1f GB free; already done: %s",
        job.dataset,
        job.folder,
        plan.bytes_to_fetch / 1e9,
        plan.bytes_needed / 1e9,
        plan.free_bytes / 1e9,
        ", ".join(plan.done) or "nothing",
    )
    if not invocation.dry_run:
        with sole_writer(job.folder), transferring() as show:
            plan = _plan(job)  # again: another process may have owned the folder meanwhile
            download(plan, progress=lambda one: show(f"{one.step} {one.name}", one.done_bytes, one.total_bytes))
        log_next("convert", job.folder, "SHARDS")
    if invocation.json:
        archives = [str(archive.path) for archive in plan.archives]
        write_json({"folder": job.folder, "archives": archives, "bytes_to_fetch": plan.bytes_to_fetch})


def _plan(job: DownloadJob) -> DownloadPlan:
    return plan_download(
        job.dataset, job.folder, splits=job.splits, base_url=job.base_url, keep_archives=job.keep_archives
    )


JOB = Job(name="download", settings=DownloadJob, run=main, description=__doc__)
