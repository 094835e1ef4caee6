"""List the jobs that were submitted to a cluster, newest first.

Examples:
    captioning jobs
    captioning jobs --address http://head:8265 --json
"""

import time
from dataclasses import asdict, dataclass

from cluster.job_progress import duration
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import show_table


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsJob:
    """The cluster to list the jobs of."""

    address: str | None = None
    """Address of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""


def main(invocation: Invocation[JobsJob]) -> None:
    """List the jobs."""
    from cluster.submission.job_server import JobServer

    server = JobServer(invocation.settings.address)
    jobs = server.jobs()
    if invocation.json:
        write_json([asdict(job) for job in jobs])
        return
    rows = [(job.id, job.status, _when(job.started), duration(job.seconds), job.command) for job in jobs]
    show_table(f"Jobs at {server.address}", ("job", "status", "started", "duration", "command"), rows, one_line=True)


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%m-%d %H:%M", time.localtime(seconds))


JOB = Job(name="jobs", settings=JobsJob, run=main, description=__doc__, changes_nothing=True)
