"""Signs of life: of the driver, with which the coordinator ends, and of the ranks, of which none may hang."""

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

_LOOK_EVERY_SECONDS = 0.5
_KILL_SECONDS = 5.0


def end_with(pid: int | None, *, before: Callable[[], None]) -> None:
    """End this process as soon as another one of this machine has ended.

    Args:
        pid: of the other process; without one, or if it cannot be seen from here, this process lives on.
        before: called first.
    """
    try:
        process = psutil.Process(pid) if pid else None
    except psutil.NoSuchProcess:  # such as a driver in another container
        process = None
    if process is None:
        return

    def watch() -> None:
        while _is_alive(process):
            time.sleep(_LOOK_EVERY_SECONDS)
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


class Watch:
    """Tells of a rank that gives no sign of life, or no longer gets on.

    Args:
        on_hang: called with the rank's place and the seconds of silence.
        on_late: called with the seconds that a group has not been heard of since it was expected.
        hang_seconds: that are borne.
        start_seconds: that a group may take until its ranks are known.
        kill: ends the ranks at these places after that.
        clock: seconds, monotonic.
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
        self._places: Sequence[Any] = ()
        self._expected_since: float | None = None
        self._heard: dict[int, float] = {}
        self._got_on: dict[int, tuple[int, float]] = {}
        threading.Thread(target=self._look_on, daemon=True).start()

    def expect(self) -> None:
        """Watch for the ranks of a group that is about to start."""
        self._places, self._expected_since = (), self._clock()

    def begin(self, places: Sequence[Any]) -> None:
        """Watch the ranks of a new attempt."""
        self._start_clocks(places)
        self._places, self._expected_since = tuple(places), None

    def _start_clocks(self, places: Sequence[Any]) -> None:
        now = self._clock()
        self._heard = {place.rank: now for place in places}
        self._got_on = {place.rank: (-1, now) for place in places}

    def end(self) -> None:
        """Watch nobody."""
        self._places, self._expected_since = (), None

    def seconds_silent(self) -> float:
        """Return for how long the rank has been silent that was heard of least lately; 0 if nobody is watched."""
        now = self._clock()
        return max((now - self._heard.get(place.rank, now) for place in self._places), default=0.0)

    def note(self, rank: int, progress: int) -> None:
        """Take a rank's sign of life; ``progress`` grows as long as it gets on."""
        now = self._clock()
        self._heard[rank] = now
        if progress > self._got_on.get(rank, (-1, now))[0]:
            self._got_on[rank] = (progress, now)

    def silent(self) -> tuple[Any, float] | None:
        """Return the rank that hangs, and for how long: one that is silent before one that only waits for it."""
        now = self._clock()
        for since in (self._heard, {rank: at for rank, (_, at) in self._got_on.items()}):
            waits = [(now - since.get(place.rank, now), place) for place in self._places]
            if waits and max(wait for wait, _ in waits) > self._hang_seconds:
                wait, place = max(waits, key=lambda one: one[0])
                return place, wait
        return None

    def _look_on(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_SECONDS)
            self.end_what_hangs()
            self.end_what_does_not_start()

    def end_what_does_not_start(self) -> None:
        """Tell of a group of which no rank has been heard of in its time; once."""
        since, now = self._expected_since, self._clock()
        if since is None or now - since <= self._start_seconds:
            return
        self._expected_since = None
        try:
            self._on_late(now - since)
        except Exception as error:  # nobody would watch any more
            logger.warning("a group that does not start could not be ended: %s", error)

    def end_what_hangs(self) -> None:
        """End the ranks if one of them hangs; if they live on, this is tried again after as long."""
        hung, places = self.silent(), self._places
        if not hung:
            return
        self._start_clocks(places)
        try:
            self._on_hang(*hung)
            self._kill(places)
        except Exception as error:  # nobody would watch any more
            logger.warning("ranks that hang could not be ended, tried again later: %s", error)


def kill_ranks(places: Sequence[Any]) -> None:
    """Kill processes on their nodes and through Ray, for a stopped one does not listen to Ray."""
    import ray

    kills = [task_on(place.node_id, _kill).remote(place.pid, place.born) for place in places]
    ray.wait(kills, num_returns=len(kills), timeout=_KILL_SECONDS)
    for place in places:
        with contextlib.suppress(Exception):  # it is gone, as it should be
            ray.kill(place.actor)


def _kill(pid: int, born: float | None) -> None:
    """Kill a worker's process, unless another process has its number by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        is_same = process.create_time() == born if born else "ray::" in " ".join(process.cmdline())
        if is_same:
            process.kill()
