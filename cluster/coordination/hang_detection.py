"""Watchdog of the ranks' heartbeats: reports a rank that is silent or stuck, then kills the group.

Also ends this process when the driver dies.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from cluster.resources.placement import task_on

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_KILL_SECONDS = 5.0


def end_with(pid: int | None, *, before: Callable[[], None]) -> None:
    """End this process as soon as another process on this machine has ended.

    Args:
        pid: id of the other process; if None or not visible from here, this process is not ended.
        before: function called just before this process ends.
    """
    try:
        process = psutil.Process(pid) if pid else None
    except psutil.NoSuchProcess:  # for example a driver in another container
        process = None
    if process is None:
        return

    def watch() -> None:
        while _is_alive(process):
            time.sleep(_POLL_SECONDS)
        try:
            before()
        finally:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Watchdog:
    """Reports a rank that sends no heartbeat, or makes no progress, and kills its group.

    Args:
        on_hang: function called with the worker that hangs and the duration of its silence in seconds.
        on_late: function called with the time, in seconds, since a group that has not started was expected.
        hang_seconds: silence, in seconds, after which a rank counts as hung.
        start_seconds: time, in seconds, that a group may take until its workers are known.
        kill: function that kills the processes of the given workers, called after ``on_hang``.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        on_hang: Callable[[Any, float], None],
        on_late: Callable[[float], None],
        *,
        hang_seconds: float,
        start_seconds: float,
        kill: Callable[[Sequence[Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_hang, self._on_late, self._kill, self._clock = on_hang, on_late, kill, clock
        self._hang_seconds, self._start_seconds = hang_seconds, start_seconds
        self._workers: Sequence[Any] = ()
        self._expected_since: float | None = None
        self._last_heartbeat: dict[int, float] = {}
        self._last_progress: dict[int, tuple[int, float]] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def expect(self) -> None:
        """Wait for the workers of a group that is about to start."""
        self._workers, self._expected_since = (), self._clock()

    def begin(self, workers: Sequence[Any]) -> None:
        """Watch the workers of a group, each as if it had just sent a heartbeat."""
        self._start_clocks(workers)
        self._workers, self._expected_since = tuple(workers), None

    def _start_clocks(self, workers: Sequence[Any]) -> None:
        now = self._clock()
        self._last_heartbeat = {worker.rank: now for worker in workers}
        self._last_progress = {worker.rank: (-1, now) for worker in workers}

    def end(self) -> None:
        """Stop watching the group."""
        self._workers, self._expected_since = (), None

    def seconds_silent(self) -> float:
        """Return the time, in seconds, since the oldest of the ranks' last heartbeats; 0 if no group is watched."""
        now = self._clock()
        return max((now - self._last_heartbeat.get(worker.rank, now) for worker in self._workers), default=0.0)

    def heartbeat(self, rank: int, progress: int) -> None:
        """Record a rank's heartbeat.

        Args:
            rank: number of the rank.
            progress: counter that grows while the rank makes progress.
        """
        now = self._clock()
        self._last_heartbeat[rank] = now
        if progress > self._last_progress.get(rank, (-1, now))[0]:
            self._last_progress[rank] = (progress, now)

    def hung(self) -> tuple[Any, float] | None:
        """Return the worker that hangs, and for how many seconds; None if none does.

        A rank without heartbeats is named before one without progress, which may only be waiting for it.
        """
        now = self._clock()
        for since in (self._last_heartbeat, {rank: at for rank, (_, at) in self._last_progress.items()}):
            waits = [(now - since.get(worker.rank, now), worker) for worker in self._workers]
            if waits and max(wait for wait, _ in waits) > self._hang_seconds:
                wait, worker = max(waits, key=lambda one: one[0])
                return worker, wait
        return None

    def _watch(self) -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            self.end_what_hangs()
            self.end_what_does_not_start()

    def end_what_does_not_start(self) -> None:
        """Report, once, that the workers of an expected group are still unknown after ``start_seconds``."""
        since, now = self._expected_since, self._clock()
        if since is None or now - since <= self._start_seconds:
            return
        self._expected_since = None
        try:
            self._on_late(now - since)
        except Exception as error:  # the watchdog's thread must not end
            logger.warning("a worker group that does not start could not be ended: %s", error)

    def end_what_hangs(self) -> None:
        """Kill the workers if one of them hangs; if they survive, try again after another ``hang_seconds``."""
        hung, workers = self.hung(), self._workers
        if not hung:
            return
        self._start_clocks(workers)
        try:
            self._on_hang(*hung)
            self._kill(workers)
        except Exception as error:  # the watchdog's thread must not end
            logger.warning("hung workers could not be killed, trying again in %.0f s: %s", self._hang_seconds, error)


def kill_ranks(workers: Sequence[Any]) -> None:
    """Kill workers' processes, on their nodes by signal and through Ray: a stopped process does not respond to Ray."""
    import ray

    kills = [task_on(worker.node_id, _kill).remote(worker.pid, worker.born) for worker in workers]
    ray.wait(kills, num_returns=len(kills), timeout=_KILL_SECONDS)
    for worker in workers:
        with contextlib.suppress(Exception):  # the signal has already killed it
            ray.kill(worker.actor)


def _kill(pid: int, born: float | None) -> None:
    """Kill a worker's process, unless its pid belongs to another process by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        is_same = process.create_time() == born if born else "ray::" in " ".join(process.cmdline())
        if is_same:
            process.kill()
