"""A rank's client of the coordinator: sends heartbeats and metrics, receives requests to checkpoint or stop."""

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from captioning.training.collectives import Flags
from cluster.coordination.messages import Attempt, HeartbeatReply, WorkerInfo
from cluster.coordination.restart_policy import Failure
from cluster.errors import one_line
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint

_HEARTBEAT_SECONDS, _HEARTBEAT_SECONDS_OF_OTHERS = 0.25, 1.0
_LOG_LINES = 20


class CoordinatorClient:
    """Sends heartbeats from a thread of its own; a rank whose attempt was replaced ends there.

    Args:
        actor: Ray's handle of the coordinator.
        rank: number of this process in its group.
        batch_size: images of a step.
    """

    def __init__(self, actor: Any, rank: int, *, batch_size: int) -> None:  # noqa: ANN401  no type at Ray
        self._actor, self.rank, self._batch_size = actor, rank, batch_size
        self.step = 0
        """Number of steps done."""
        self._progress = 0
        self._attempt: int | None = None
        self._rows: list[Row] = []
        self._sending = threading.Lock()
        self._reply, self._fulfilled = HeartbeatReply("none", 0), 0
        self._is_over = threading.Event()

    def worker_info(self) -> WorkerInfo:
        """Return where this process runs."""
        return this_worker(self.rank)

    def begin_attempt(self, workers: Sequence[WorkerInfo]) -> Attempt:
        """Begin an attempt, from the latest checkpoint that counts; on rank 0 alone."""
        return ray.get(self._actor.begin_attempt.remote(list(workers)))

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Take a damaged checkpoint out of the record; return the same attempt from the one before it."""
        return ray.get(self._actor.reject.remote(attempt, checkpoint, reason))

    def join_attempt(self, attempt: Attempt) -> None:
        """Send heartbeats from now on."""
        self._attempt, self.step = attempt.number, attempt.checkpoint.step if attempt.checkpoint else 0
        threading.Thread(target=self._send_heartbeats, daemon=True, name="captioning-heartbeat").start()

    def heartbeat(self, step: int) -> None:
        """Note that this rank makes progress, at a number of steps done; the next heartbeat says so."""
        self.step = step
        self._progress += 1

    def requests(self) -> Flags:
        """Return what the coordinator requests of all ranks; every request is returned once."""
        request, number = self._reply
        if request == "none" or number == self._fulfilled:
            return Flags()
        self._fulfilled = number
        return Flags(checkpoint=True, stop=request == "stop")

    def add_row(self, step: int, metrics: dict[str, float]) -> None:
        """Send a step's metrics with the next heartbeat."""
        with self._sending:
            self._rows.append(Row(step, int(time.time() * 1000), metrics))

    def commit(self, step: int, metrics: dict[str, float], *, awaits_score: bool = False) -> None:
        """Make a checkpoint count.

        Raises:
            PermissionError: this attempt has been replaced.
        """
        ray.get(self._send("commit", step, metrics, awaits_score=awaits_score))

    def await_score(self, step: int) -> None:
        """Note that a task is going to score the checkpoint of a step."""
        ray.get(self._actor.await_score.remote(step))

    def add_score(self, step: int, metrics: dict[str, float]) -> None:
        """Attach scores to the checkpoint of a step that has passed."""
        ray.get(self._actor.add_score.remote(step, metrics))

    def end_training(self) -> None:
        """Note that the ranks have stopped, and their last checkpoint counts."""
        ray.get(self._actor.end_training.remote(self._attempt))

    def report_preemption(self) -> None:
        """Note that this attempt ends because a node is about to be taken away."""
        ray.get(self._actor.report_preemption.remote(self._attempt))

    def log_event(self, event: str) -> None:
        """Log an event for people."""
        self._actor.log_event.remote(event)

    def report_failure(self, error: Exception, *, is_agreed: bool, hint: str = "") -> None:
        """Report how this rank failed.

        Args:
            error: exception that it raised.
            is_agreed: whether every rank fails alike.
            hint: where to find more.
        """
        reason = one_line(error) + hint
        lines = "".join(traceback.format_exception(error)).splitlines()[-_LOG_LINES:]
        failure = Failure(
            self.rank,
            self.step,
            self.step * self._batch_size,
            reason,
            node=socket.gethostname(),
            log=tuple(lines),
            is_agreed=is_agreed,
        )
        # To the process's own log, which people are shown; Ray Train keeps what is logged in another file.
        sys.stderr.write("".join(traceback.format_exception(error)))
        sys.stderr.flush()
        ray.get(self._actor.report_failure.remote(self._attempt, failure))

    def close(self) -> None:
        """Send the last rows, and no further heartbeat."""
        self._is_over.set()
        if self._attempt is not None:
            with contextlib.suppress(RayError):  # without it, nothing of this attempt counts any more
                ray.get(self._send("heartbeat", self.rank, self._progress))

    def _send(self, method: str, *arguments: Any, **options: bool) -> Any:  # noqa: ANN401  Ray's references have no type
        with self._sending:  # calls arrive in the order in which they are made, so that rows keep theirs
            rows, self._rows = self._rows, []
            return getattr(self._actor, method).remote(self._attempt, *arguments, rows, **options)

    def _send_heartbeats(self) -> None:
        pause = _HEARTBEAT_SECONDS if self.rank == 0 else _HEARTBEAT_SECONDS_OF_OTHERS
        while not self._is_over.wait(pause):
            try:
                reply: Any = ray.get(self._send("heartbeat", self.rank, self._progress))
            except RayError as error:
                self._exit(f"the coordinator is gone: {error}")
                return
            if reply.request == "exit":
                self._exit("this attempt was replaced")
                return
            self._reply = reply

    def _exit(self, why: str) -> None:
        """End this process: whatever it did from now on would not count."""
        if not self._is_over.is_set():
            sys.stderr.write(f"rank {self.rank} ends: {why}\n")
            sys.stderr.flush()
            os._exit(1)


def this_worker(rank: int) -> WorkerInfo:
    """Return where this process runs, as a rank."""
    context = ray.get_runtime_context()
    log = Path("/proc/self/fd/2")
    return WorkerInfo(
        rank=rank,
        node_id=context.get_node_id(),
        host=socket.gethostname(),
        pid=os.getpid(),
        log=str(log.readlink()) if log.exists() else "",
        actor=context.current_actor,
        born=psutil.Process().create_time(),
    )
