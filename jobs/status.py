"""Show the progress of a submitted job: phase, step, loss, scores, checkpoint, speed, workers, time left, and links.

Examples:
    captioning status big-1
    captioning status big-1 --watch       # until the job ends, or Ctrl-C, which does not stop the job
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.live import Live

from cluster.job_progress import read_progress
from cluster.log_text import clean
from jobs.console.job import Invocation, Job
from jobs.console.job_view import job_line, job_table, latest_progress
from jobs.console.output import write_json

if TYPE_CHECKING:
    from cluster.submission.job import JobState
    from cluster.submission.job_server import JobServer

_POLL_SECONDS, _LINE_EVERY_SECONDS = 1.0, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusJob:
    """The job to show."""

    id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ID")]
    """Id of the job, as captioning jobs lists it."""
    address: str | None = None
    """Address of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""
    watch: bool = False
    """Update the status until the job ends."""


def main(invocation: Invocation[StatusJob]) -> None:
    """Show the job's state and progress."""
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
    """Show a job until it ends; return its last state and progress."""
    progress: dict[str, Any] = {}
    # A thread reads the log as it grows, so that it is not downloaded as a whole at every poll.
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
    """Yield a function that shows a job on standard error: as a live table in a terminal, otherwise as lines."""
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
            line = clean(job_line(job, progress, address=address))
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    yield show


JOB = Job(name="status", settings=StatusJob, run=main, description=__doc__, changes_nothing=True)
