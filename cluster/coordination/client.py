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
from cluster.coordination.messages import ANSWER_SECONDS, Attempt, HeartbeatReply, WorkerInfo
from cluster.coordination.restart_policy import Failure
from cluster.errors import failure_line
from cluster.log_text import clean
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint

# Rank 0 alone reads requests and sends rows, so it calls more often.
_HEARTBEAT_SECONDS, _HEARTBEAT_SECONDS_OF_OTHERS = 0.25, 1.0
_LOG_LINES = 20


class CoordinatorClient:
    """Client of one rank; its heartbeat thread ends the process once the rank's attempt is replaced.

    Args:
        actor: Ray's handle of the coordinator.
        rank: number of this process in its group.
        batch_size: number of images in the batch of one step, over all ranks.
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
        """Return the rank, node and process id of this process."""
        return this_worker(self.rank)

    def begin_attempt(self, workers: Sequence[WorkerInfo]) -> Attempt:
        """Begin an attempt from the latest committed checkpoint; called on rank 0 only."""
        return _answer(self._actor.begin_attempt.remote(list(workers)))

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Remove a damaged checkpoint from the record; return the attempt with the checkpoint before it."""
        return _answer(self._actor.reject.remote(attempt, checkpoint, reason))

    def join_attempt(self, attempt: Attempt) -> None:
        """Start to send heartbeats."""
        self._attempt, self.step = attempt.number, attempt.checkpoint.step if attempt.checkpoint else 0
        threading.Thread(target=self._send_heartbeats, daemon=True, name="captioning-heartbeat").start()

    def heartbeat(self, step: int) -> None:
        """Record that this rank makes progress and has done ``step`` steps; the next heartbeat reports the progress."""
        self.step = step
        self._progress += 1

    def requests(self) -> Flags:
        """Return the coordinator's request to all ranks; each request is returned once."""
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
        """Commit a checkpoint after all of its files are written.

        Raises:
            PermissionError: this attempt has been replaced.
        """
        _answer(self._send("commit", step, metrics, awaits_score=awaits_score))

    def await_score(self, step: int) -> None:
        """Announce that a validation task will score the checkpoint of a step."""
        _answer(self._actor.await_score.remote(step))

    def add_score(self, step: int, metrics: dict[str, float]) -> None:
        """Attach scores to the checkpoint of an earlier step."""
        _answer(self._actor.add_score.remote(step, metrics))

    def begin_self_critical(self) -> CommittedCheckpoint:
        """Record that self-critical training starts from the best checkpoint, and return that."""
        return _answer(self._send("begin_self_critical"))

    def end_training(self, stopped_early: str = "") -> None:
        """Report that the ranks have stopped and their last checkpoint is committed."""
        _answer(self._actor.end_training.remote(self._attempt, stopped_early))

    def report_preemption(self) -> None:
        """Report that this attempt ends because a node is about to be preempted."""
        _answer(self._actor.report_preemption.remote(self._attempt))

    def log_event(self, event: str) -> None:
        """Log a line for the user."""
        self._actor.log_event.remote(event)

    def report_failure(self, error: Exception, *, is_agreed: bool, hint: str = "") -> None:
        """Report how this rank failed.

        Args:
            error: exception that the rank raised.
            is_agreed: whether every rank raised the same error, so that another attempt would fail too.
            hint: text appended to the error's message, such as the path of a file with details.
        """
        reason = failure_line(error) + hint
        text = clean("".join(traceback.format_exception(error)), keeps_lines=True)
        failure = Failure(
            self.rank,
            self.step,
            self.step * self._batch_size,
            reason,
            node=socket.gethostname(),
            log=tuple(text.splitlines()[-_LOG_LINES:]),
            is_agreed=is_agreed,
        )
        # The failure report shows the end of the process's own log; Ray Train writes logging's records elsewhere.
        sys.stderr.write(text)
        sys.stderr.flush()
        _answer(self._actor.report_failure.remote(self._attempt, failure))

    def close(self) -> None:
        """Stop the heartbeats, and send the last rows."""
        self._is_over.set()
        if self._attempt is not None:
            with contextlib.suppress(RayError):  # without a coordinator, the rows are dropped
                _answer(self._send("heartbeat", self.rank, self._progress))

    def _send(self, method: str, *arguments: Any, **options: bool) -> Any:  # noqa: ANN401  Ray's references have no type
        # Two threads send. Ray keeps the order of one caller's calls; the lock keeps that of the rows taken for them.
        with self._sending:
            rows, self._rows = self._rows, []
            return getattr(self._actor, method).remote(self._attempt, *arguments, rows, **options)

    def _send_heartbeats(self) -> None:
        pause = _HEARTBEAT_SECONDS if self.rank == 0 else _HEARTBEAT_SECONDS_OF_OTHERS
        while not self._is_over.wait(pause):
            try:
                reply: Any = _answer(self._send("heartbeat", self.rank, self._progress))
            except RayError as error:
                self._exit(f"the coordinator is gone: {error}")
                return
            if reply.request == "exit":
                self._exit("this attempt was replaced")
                return
            self._reply = reply

    def _exit(self, why: str) -> None:
        """End this process at once: nothing that it sends would be accepted any more."""
        if not self._is_over.is_set():
            sys.stderr.write(f"rank {self.rank} ends: {clean(why, keeps_lines=True)}\n")
            sys.stderr.flush()
            os._exit(1)


def _answer(reference: Any) -> Any:  # noqa: ANN401  Ray's references have no type
    return ray.get(reference, timeout=ANSWER_SECONDS)


def this_worker(rank: int) -> WorkerInfo:
    """Return the node, process id and log of this process, as those of a rank."""
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
