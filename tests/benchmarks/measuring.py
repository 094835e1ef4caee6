"""What a benchmark is made of: rows of figures, calls that take turns, and the machine."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


class UnavailableError(Exception):
    """The benchmark cannot run on this machine; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: one piece of work, done by this project, by a peer, and at its limit.

    Attributes:
        what: work that is measured, with its sizes.
        unit: unit of all figures, such as "images/s", "ms" or "MB".
        ours: figure of this project.
        peer: figure of the peer; None if it has none.
        peer_name: what a user would pick instead.
        limit: figure of the part of the work that nobody can leave out; None if it is not known.
        limit_name: that part.
        less_is_better: whether a smaller figure is the better one, as for times.
        note: what else to know of it.
        cells: the row's cells by the heading of their column, of a table that has columns of its own; ``ours`` is then
            shown nowhere else.
    """

    what: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    limit: float | None = None
    limit_name: str = ""
    less_is_better: bool = False
    note: str = ""
    cells: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_seconds(
        cls, what: str, seconds: Mapping[str, float], *, unit: str = "ms", count: int = 1, note: str = ""
    ) -> Self:
        """Return the row of calls that ``interleaved`` has timed.

        Args:
            what: work that is measured, with its sizes.
            seconds: durations of a call by name: "ours", then the peer's and the limit's, of which either may be left
                out from the end.
            unit: "s" or "ms" for the time of one of ``count``; any other, such as "images/s", for how many a second.
            count: number of images, captions or steps of a call.
            note: what else to know of it.
        """
        is_time = unit in ("s", "ms")
        scale = 1000 if unit == "ms" else 1
        figures = {name: scale * one / count if is_time else count / one for name, one in seconds.items()}
        (_, ours), *others = figures.items()
        (peer_name, peer), (limit_name, limit) = [*others, ("", None), ("", None)][:2]
        return cls(
            what=what,
            unit=unit,
            ours=ours,
            peer=peer,
            peer_name=peer_name,
            limit=limit,
            limit_name=limit_name,
            less_is_better=is_time,
            note=note,
        )

    @property
    def ratio(self) -> float | None:
        """Return how many times better than the peer this project is; None without a peer."""
        return self._times_better(self.peer)

    @property
    def share_of_limit(self) -> float | None:
        """Return how near to the limit this project is, 1 being there; None without a limit."""
        return self._times_better(self.limit)

    def _times_better(self, other: float | None) -> float | None:
        if other is None:
            return None
        return other / self.ours if self.less_is_better else self.ours / other


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, as its module declares it.

    Attributes:
        measure: function that yields the rows; its keyword arguments, all with defaults, are options of the command
            line. It raises ``UnavailableError`` where something is missing.
        small: arguments with which a test runs it, within seconds.
        takes_minutes: whether it runs only when it is named, because it takes much longer than the others.
    """

    measure: Callable[..., Iterable[Row]]
    small: Mapping[str, Any] = field(default_factory=dict)
    takes_minutes: bool = False


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: bool = True,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Time calls that take turns, so that other load on the machine affects all of them.

    Args:
        calls: calls by name. Every other round has them in reverse.
        rounds: number of turns of each.
        warm_up: whether each is called once before, without being timed.
        clock: clock in seconds: the CPU time of this process by default; ``time.perf_counter`` for calls of which other
            processes or threads do the work.

    Returns:
        The median duration of a call in seconds, by name.
    """
    if warm_up:
        for call in calls.values():
            call()
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            started = clock()
            calls[name]()
            durations[name].append(clock() - started)
    return {name: statistics.median(taken) for name, taken in durations.items()}


def machine() -> str:
    """Return the machine's processor, cores and memory, and the release of Python and torch."""
    import platform

    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    processor = ", ".join(sorted(names)) or platform.processor() or platform.machine()
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = (f"{os.cpu_count()} cores of {processor}", *gpus, f"{memory:.0f} GiB")
    return ", ".join((*parts, f"Python {platform.python_version()}", f"torch {torch.__version__}"))


def peak_mib() -> float:
    """Return the peak memory of this process, in MiB.

    Not ``ru_maxrss``: a process begins with that of the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024
