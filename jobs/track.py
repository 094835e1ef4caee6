"""Backfill metrics that are missing from MLflow, from the journal that a training run keeps on disk.

Use it after the MLflow server was down, or after its database was restored from an older copy. Metrics that MLflow
already has are not stored again.

Examples:
    captioning track replay first
    captioning track replay runs/training/first --tracking.uri http://mlflow:5000
"""

import logging
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from cluster.config import HomeConfig, TrackerConfig
from cluster.settings import as_plain
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackJob:
    """The run to backfill."""

    action: tyro.conf.Positional[Literal["replay"]]
    """Send the run's journal to MLflow; the only action."""
    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Name of the run under --home, or folder of the run."""
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)


def main(invocation: Invocation[TrackJob]) -> None:
    """Send the journal, or say with ``--dry-run`` what would be sent."""
    job = invocation.settings
    from cluster.runs.journal import list_segments
    from cluster.tracking.client import connect, tracking_uri
    from cluster.tracking.replay import find_run, replay

    folder = find_run(job.run, job.storage.home)
    address = tracking_uri(job.tracking, job.storage)
    num_segments = len(list_segments(folder / "journal"))
    if invocation.dry_run:
        logger.info("would send %d journal segments of %s to %s", num_segments, folder, address)
        if invocation.json:
            write_json({"folder": folder, "num_segments": num_segments, "tracking": address})
        return
    sent = replay(folder, connect(job.tracking, job.storage))
    logger.info(
        "MLflow run %s (%s) at %s: added %d missing values; it now has all %d intact rows of run %s, up to step %d",
        sent.mlflow_run_id,
        sent.status,
        address,
        sent.num_lacking,
        sent.rows,
        sent.run,
        sent.steps,
    )
    if invocation.json:
        write_json({**as_plain(sent), "tracking": address})
    for complaint in sent.damaged:
        logger.warning("left out: %s", complaint)
    if sent.damaged:
        raise RuntimeError(
            f"{len(sent.damaged)} of {num_segments} journal segments are damaged and were left out; the rest was sent; "
            "restore the damaged files and run the same command again"
        )


JOB = Job(name="track", settings=TrackJob, run=main, description=__doc__)
