"""A rank's line to the coordinator: signs of life and rows one way, wishes the other."""

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
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.coordination.restart_policy import Ending, Failure
from cluster.errors import one_line
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint

_BEAT_SECONDS, _BEAT_SECONDS_OF_OTHERS = 0.25, 1.0
_LOG_LINES = 20


class CoordinatorClient:
    """Talks to the coordinator from a thread of its own; a rank that it no longer wants ends here.

    Args:
        coordinator: Ray's handle.
        rank: of this process.
        batch_size: images a step.
    """

    def __init__(self, coordinator: Any, rank: int, *, batch_size: int) -> None:  # noqa: ANN401  no type at Ray
        self._coordinator, self.rank, self._batch_size = coordinator, rank, batch_size
        self.step = 0
        self._progress = 0
        self._attempt: int | None = None
        self._rows: list[Row] = []
        self._sending = threading.Lock()
        self._wish, self._fulfilled = ("go on", 0), 0
        self._is_over = threading.Event()

    def place(self) -> WorkerInfo:
        """Return where this process runs."""
        return here(self.rank)

    def begin(self, places: Sequence[WorkerInfo]) -> Attempt:
        """Begin an attempt, on rank 0 alone."""
        return ray.get(self._coordinator.begin_attempt.remote(list(places)))

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Tell that a checkpoint is damaged; return the attempt from the one before it."""
        return ray.get(self._coordinator.reject.remote(attempt, checkpoint, reason))

    def start(self, attempt: int) -> None:
        """Give signs of life from now on."""
        self._attempt = attempt
        threading.Thread(target=self._beat_until_over, daemon=True, name="captioning-link").start()

    def get_on(self) -> None:
        """Note that this rank got on."""
        self._progress += 1

    def add_row(self, step: int, metrics: dict[str, float]) -> None:
        """Hand over a step's metrics with the next sign of life."""
        with self._sending:
            self._rows.append(Row(step, int(time.time() * 1000), metrics))

    def wishes(self) -> Flags:
        """Return what the coordinator wants of all ranks; every wish is returned once."""
        order, number = self._wish
        if order == "go on" or number == self._fulfilled:
            return Flags()
        self._fulfilled = number
        return Flags(checkpoint=True, stop=order == "stop")

    def commit(self, step: int, metrics: dict[str, float], *, awaits_score: bool = False) -> None:
        """Make a checkpoint count.

        Raises:
            PermissionError: this attempt has been replaced.
        """
        ray.get(self._send("commit", step, metrics, awaits_score=awaits_score))

    def add_score(self, step: int, metrics: dict[str, float]) -> None:
        """Tell a score of a step that has passed."""
        ray.get(self._coordinator.add_score.remote(step, metrics))

    def await_score(self, step: int) -> None:
        """Tell that a task is going to score the checkpoint of a step."""
        ray.get(self._coordinator.await_score.remote(step))

    def note_stopped(self) -> None:
        """Tell that the ranks have stopped as wanted."""
        ray.get(self._coordinator.note_stopped.remote(self._attempt))

    def leave(self, ending: Ending) -> None:
        """Tell that this attempt ends by no fault of its own."""
        ray.get(self._coordinator.leave.remote(self._attempt, ending))

    def tell(self, event: str) -> None:
        """Tell people something."""
        self._coordinator.tell.remote(event)

    def fail(self, error: Exception, *, is_agreed: bool, hint: str = "") -> None:
        """Tell how this rank failed.

        Args:
            error: that it raised.
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
        ray.get(self._coordinator.fail.remote(self._attempt, failure))

    def end(self) -> None:
        """Give no more signs of life, after the last rows."""
        self._is_over.set()
        if self._attempt is not None:
            with contextlib.suppress(RayError):  # without it, nothing of this attempt counts any more
                ray.get(self._send("beat", self.rank, self._progress))

    def _send(self, method: str, *arguments: Any, **options: bool) -> Any:  # noqa: ANN401  Ray's references have no type
        with self._sending:  # calls arrive in the order in which they are made, so that rows keep theirs
            rows, self._rows = self._rows, []
            return getattr(self._coordinator, method).remote(self._attempt, *arguments, rows, **options)

    def _beat_until_over(self) -> None:
        pause = _BEAT_SECONDS if self.rank == 0 else _BEAT_SECONDS_OF_OTHERS
        while not self._is_over.wait(pause):
            try:
                answer: Any = ray.get(self._send("beat", self.rank, self._progress))
            except RayError as error:
                self._give_up(f"the coordinator is gone: {error}")
                return
            if answer.order == "leave":
                self._give_up("this attempt was replaced")
                return
            self._wish = (answer.order, answer.number)

    def _give_up(self, why: str) -> None:
        """End this process: whatever it did from now on would not count."""
        if not self._is_over.is_set():
            sys.stderr.write(f"rank {self.rank} ends: {why}\n")
            sys.stderr.flush()
            os._exit(1)


def here(rank: int) -> WorkerInfo:
    """Return where this process runs."""
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
