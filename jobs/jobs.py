"""List the jobs that were submitted to a cluster, the newest first.

Examples:
    captioning jobs
    captioning jobs --address http://head:8265 --json
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from jobs.cli import run_job
from jobs.console.job_view import duration
from jobs.console.output import write_json
from jobs.console.parsing import parse
from jobs.console.tables import show_table


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsJob:
    """Where to look."""

    address: str | None = None
    """Of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and list the jobs."""
    invocation = parse(JobsJob, arguments, default=JobsJob(), job="jobs", description=__doc__ or "")
    from cluster.submission.job_server import JobServer

    server = JobServer(invocation.settings.address)
    jobs = server.jobs()
    if invocation.json:
        write_json([asdict(job) for job in jobs])
        return
    rows = [
        (job.id, job.status, _when(job.started), duration(job.seconds), job.commit[:12], job.command) for job in jobs
    ]
    show_table(f"Jobs at {server.address}", ("job", "status", "started", "took", "commit", "command"), rows)


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


if __name__ == "__main__":
    run_job(main)
