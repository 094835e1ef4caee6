"""State of a submitted job, as its cluster reports it. Does not import Ray."""

import time
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import one_line

RUN = "python -m jobs.cli "
"""Start of every entrypoint; runtime environments with pip or uv need plain ``python``."""
COMMIT_KEY = "captioning.git_commit"
"""Key of the code's commit in the job's metadata on the cluster."""
_ERROR, _FEW_LINES = "error: ", 2
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """State of a submitted job, as its cluster reports it."""

    id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    entrypoint: str
    message: str = ""
    started: float | None = None
    """Start time, in seconds since 1970; None before the job started."""
    ended: float | None = None
    """End time, in seconds since 1970; None before the job ended."""
    exit_code: int | None = None
    """Exit code of the job's process; None while it runs, and if it never started."""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Return whether the job has ended."""
        return self.status in _OVER

    @property
    def command(self) -> str:
        """Return the command of the job, such as ``train coco``, with its arguments."""
        return self.entrypoint.removeprefix(RUN)

    @property
    def commit(self) -> str:
        """Return the commit of the job's code; empty if another client submitted it."""
        return self.metadata.get(COMMIT_KEY, "")

    @property
    def seconds(self) -> float:
        """Return the time that the job has run, in seconds."""
        return 0.0 if self.started is None else max(0.0, (self.ended or time.time()) - self.started)


def job_state_of(job: Any) -> JobState:  # noqa: ANN401  Ray's own class has no type here
    """Convert the details that Ray's client returns to the state of a job."""
    return JobState(
        id=job.submission_id,
        status=job.status.value if hasattr(job.status, "value") else str(job.status),
        entrypoint=job.entrypoint,
        message=_reason(job.message or ""),
        started=job.start_time / 1000 if job.start_time else None,
        ended=job.end_time / 1000 if job.end_time else None,
        exit_code=job.driver_exit_code,
        metadata=dict(job.metadata or {}),
    )


def _reason(message: str) -> str:
    """Return why a job ended, on one line: the last error in its log, or the first and last lines of Ray's message."""
    first, _, log = message.partition(", last available logs")
    lines = _lines(log.partition("\n")[2])
    errors = [line for line in lines if line.startswith(_ERROR)]
    if errors:
        return errors[-1].removeprefix(_ERROR)
    summary = _lines(first)
    if lines:
        return f"{summary[0]}: {lines[-1]}"
    return " ".join(summary if len(summary) <= _FEW_LINES else (summary[0], summary[-1]))


def _lines(text: str) -> list[str]:
    return [one_line(line, longest=None) for line in text.splitlines() if line.strip()]
