"""End a job. A training run or search ends after a checkpoint, and the same submission goes on from there.

Examples:
    captioning stop big-1
"""

import logging
from dataclasses import dataclass

import tyro

from jobs.console.job import Invocation, Job
from jobs.console.output import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StopJob:
    """Which job to end."""

    id: tyro.conf.Positional[str]
    """The job's id."""
    address: str | None = None
    """Address of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""


def main(invocation: Invocation[StopJob]) -> None:
    """End the job; one that is over already stays as it is."""
    settings = invocation.settings
    from cluster.submission.job_server import JobServer

    server = JobServer(settings.address)
    job = server.job(settings.id)
    if job.is_over:
        logger.info("job %s is over already: %s", job.id, job.status)
    elif invocation.dry_run:
        logger.info("would stop job %s, which is %s", job.id, job.status)
    else:
        job = server.stop(job.id)
        logger.info("job %s is over: %s", job.id, job.status)
    if invocation.json:
        write_json({"id": job.id, "status": job.status})


JOB = Job(name="stop", settings=StopJob, run=main, description=__doc__)
