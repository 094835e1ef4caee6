"""Show the log of a submitted job, or of one of its ranks.

Examples:
    captioning logs big-1
    captioning logs big-1 --follow
    captioning logs big-1 --rank 3        # of the latest attempt, read from the rank's node
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TextIO

import tyro

from cluster.job_progress import is_progress, read_progress
from jobs.console.job import Invocation, Job
from jobs.console.output import result_stream, write_json, write_line


@dataclass(frozen=True, kw_only=True, slots=True)
class LogsJob:
    """The log to show."""

    id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ID")]
    """Id of the job, as captioning jobs lists it."""
    address: str | None = None
    """Address of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""
    rank: int | None = None
    """Rank to show the log of; the log of the job's own process if not given."""
    follow: bool = False
    """Show new lines as they are written, until the job ends."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.rank is not None and self.follow:
            raise ValueError("the log of a rank cannot be followed; leave out --follow or --rank")


def main(invocation: Invocation[LogsJob]) -> None:
    """Show the log of the job or of a rank."""
    job = invocation.settings
    from cluster.submission.job_server import JobServer

    server = JobServer(job.address)
    if job.follow and not invocation.json:
        server.follow(server.job(job.id).id, lambda line: show_line(line, result_stream()))
        return
    log = server.log(server.job(job.id).id)
    lines = [line for line in log if not is_progress(line)]
    if job.rank is not None:
        lines = server.rank_log(find_rank(log, job))
    if invocation.json:
        write_json({"id": job.id, "rank": job.rank, "lines": lines})
        return
    for line in lines:
        show_line(line, result_stream())


def show_line(line: str, stream: TextIO) -> None:
    """Show a line of a job's log, unless it is meant for ``captioning status``."""
    if not is_progress(line):
        write_line(line, stream=stream)
        stream.flush()


def find_rank(log: Sequence[str], job: LogsJob) -> dict[str, Any]:
    """Return a rank's node and log file, as the job last reported them.

    Args:
        log: lines of the job's log.
        job: settings of this command, which name the job and the rank.

    Raises:
        ValueError: the job has reported no ranks, or has no rank of this number.
    """
    groups = [found["ranks"] for line in log if (found := read_progress(line)) and found.get("ranks")]
    if not groups:
        raise ValueError(
            f"job {job.id} has reported no ranks: it does not train, or has not started training; leave out --rank"
        )
    ranks = {worker["rank"]: worker for worker in groups[-1]}
    if job.rank not in ranks:
        raise ValueError(f"job {job.id} has no rank {job.rank}; use one of its latest ranks, 0 to {len(ranks) - 1}")
    return ranks[job.rank]


JOB = Job(name="logs", settings=LogsJob, run=main, description=__doc__, changes_nothing=True)
