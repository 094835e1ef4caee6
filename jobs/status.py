"""Say how far a job is: step, loss, images/s, waiting for data, workers, restarts, time left, and where to look.

Examples:
    captioning status big-1
    captioning status big-1 --watch       # until it is over, or Ctrl-C, which does not end the job
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.live import Live

from cluster.job_progress import read_progress
from jobs.console.job import Invocation, Job
from jobs.console.job_view import job_line, job_table, latest_progress
from jobs.console.output import write_json

if TYPE_CHECKING:
    from cluster.submission.job import JobState
    from cluster.submission.job_server import JobServer

_POLL_SECONDS, _LINE_EVERY_SECONDS = 1.0, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusJob:
    """Which job to look at."""

    id: tyro.conf.Positional[str]
    """The job's id."""
    address: str | None = None
    """Address of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""
    watch: bool = False
    """Go on looking until it is over."""


def main(invocation: Invocation[StatusJob]) -> None:
    """Show how far the job is."""
    settings = invocation.settings
    from cluster.submission.job_server import JobServer

    server = JobServer(settings.address)
    job = server.job(settings.id)
    if settings.watch:
        job, progress = _watch(server, job)
    else:
        progress = latest_progress(server.log(job.id))
        Console(stderr=True).print(job_table(job, progress, address=server.address))
    if invocation.json:
        write_json({**asdict(job), "seconds": job.seconds, "progress": progress})


def _watch(server: "JobServer", job: "JobState") -> tuple["JobState", dict[str, Any]]:
    """Show a job until it is over: as a table that is kept up to date, or as lines."""
    progress: dict[str, Any] = {}
    # The log comes as it is written, in a thread of its own: it need not be read as a whole again and again.
    follower = threading.Thread(
        target=server.follow,
        args=(job.id, lambda line: progress.update(read_progress(line) or {})),
        daemon=True,
        name="captioning-follower",
    )
    follower.start()
    with _view(server.address) as show:
        while not job.is_over:
            show(job, progress)
            time.sleep(_POLL_SECONDS)
            job = server.job(job.id)
        follower.join()
        show(job, progress)
    return job, progress


@contextmanager
def _view(address: str) -> Iterator[Callable[["JobState", dict[str, Any]], None]]:
    """Give what shows a job on standard error: a table that is kept up to date in a terminal, else lines."""
    console = Console(stderr=True)
    if sys.stderr.isatty():
        with Live(console=console, auto_refresh=False) as live:
            yield lambda job, progress: live.update(job_table(job, progress, address=address), refresh=True)
        return
    last = float("-inf")

    def show(job: "JobState", progress: dict[str, Any]) -> None:
        nonlocal last
        if job.is_over or time.monotonic() - last >= _LINE_EVERY_SECONDS:
            last = time.monotonic()
            console.print(job_line(job, progress, address=address), soft_wrap=True, highlight=False, markup=False)

    yield show


JOB = Job(name="status", settings=StatusJob, run=main, description=__doc__)
