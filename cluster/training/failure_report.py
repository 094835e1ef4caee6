"""Failure report: the text that a person reads when training has failed for good."""

import shlex
from collections import deque
from pathlib import Path

from cluster.config import TrainRun
from cluster.coordination.messages import RunProgress, WorkerInfo
from cluster.coordination.restart_policy import Failure
from cluster.resources.placement import task_on
from cluster.runs.claim import ClaimLostError
from cluster.runs.identity import CONFIG_NAME

_LOG_LINES = 20
_FETCH_SECONDS = 10.0


def failure_text(run: TrainRun, progress: RunProgress) -> str:
    """Return a text of several lines: what failed, where and why, how to resume, and the end of that worker's log."""
    final = progress.final_failure
    failure = final.cause if final else None
    latest = progress.latest
    where = f" on {_worker_of(failure, progress.workers)}" if failure else ""
    at = f" after step {failure.step} (position {failure.position} of the stream)" if failure else ""
    resume = (
        f"resume from the checkpoint of step {latest.step}, {latest.name}"
        if latest
        else "start from the beginning (there is no checkpoint)"
    )
    lines = [
        f"training failed{where}{at}: {failure.reason if failure else 'the cause is unknown'}",
        f"There is no further attempt: {final.why if final else 'the driver could not continue'}.",
        _advice(run, failure, resume),
    ]
    log = _log_of(failure, progress.workers) if failure else []
    if log:
        lines += [f"The last {len(log)} lines of that worker's log:", *(f"  {line}" for line in log)]
    return "\n".join(lines)


def _advice(run: TrainRun, failure: Failure | None, resume: str) -> str:
    command = f"captioning train --config {shlex.quote(str(run.folder / CONFIG_NAME))}"
    if failure and ClaimLostError.__name__ in failure.reason:
        return f"The other process has the run now; leave it to finish, or take the run back: {command} --take-over"
    return f"After fixing the cause, {resume}: {command}"


def _worker_of(failure: Failure, workers: tuple[WorkerInfo, ...]) -> str:
    found = next((worker for worker in workers if worker.rank == failure.rank), None)
    if found:
        return f"{found}, node {found.node_id[:12]}"
    return f"rank {failure.rank} on {failure.node}" if failure.rank >= 0 else "the driver's node"


def _log_of(failure: Failure, workers: tuple[WorkerInfo, ...]) -> list[str]:
    """Return the end of a rank's log, read on its node; if it cannot be read, the traceback that the rank reported."""
    worker = next((worker for worker in workers if worker.rank == failure.rank), None)
    fetched = _fetch(worker) if worker and worker.log else []
    return fetched or list(failure.log)


def _fetch(worker: WorkerInfo) -> list[str]:
    import ray
    from ray.exceptions import RayError

    tail = task_on(worker.node_id, last_lines).remote(worker.log, _LOG_LINES)
    try:
        return ray.get(tail, timeout=_FETCH_SECONDS)
    except RayError:  # the node is gone, and the log with it
        return []


def last_lines(path: str, count: int) -> list[str]:
    """Return the last lines of a text file; none if it cannot be read."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip() for line in deque(file, maxlen=count)]
    except OSError:
        return []
