"""Stop a submitted job. A training run or search first saves a checkpoint; submitting it again resumes from there.

Examples:
    captioning stop big-1
"""

import logging
from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.console.job import Invocation, Job
from jobs.console.output import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StopJob:
    """The job to stop."""

    id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ID")]
    """Id of the job, as captioning jobs lists it."""
    address: str | None = None
    """Address of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""


def main(invocation: Invocation[StopJob]) -> None:
    """Stop the job, unless it has already ended."""
    settings = invocation.settings
    from cluster.submission.job_server import JobServer

    server = JobServer(settings.address)
    job = server.job(settings.id)
    if job.is_over:
        logger.info("job %s has already ended: %s", job.id, job.status)
    elif invocation.dry_run:
        logger.info("would stop job %s, which is %s", job.id, job.status)
    else:
        job = server.stop(job.id)
        logger.info("job %s has ended: %s", job.id, job.status)
    if invocation.json:
        write_json({"id": job.id, "status": job.status})


JOB = Job(name="stop", settings=StopJob, run=main, description=__doc__)
