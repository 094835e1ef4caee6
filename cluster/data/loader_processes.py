"""Loader processes: how many of them read a rank's batches ahead, by what reading takes and by the CPUs of a worker."""

import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from torch.utils.data import DataLoader, Dataset

from captioning.data.batches import CaptionBatch

T = TypeVar("T", CaptionBatch, list[CaptionBatch])

NUM_MEASURED = 5
"""Batches that a worker reads itself before the number is chosen; the first one, which opens files, is not counted."""

_LEAST_SHARE = 0.02  # of a step; below it, reading is not what limits the speed
_BATCHES_PER_PROCESS = 2  # that the data loader keeps ready; each lies in shared memory
_SHARED_MEMORY = Path("/dev/shm")


class ReadingCost(NamedTuple):
    """What reading costs a worker that does it itself.

    Attributes:
        read_seconds: time to read a batch, in seconds.
        other_seconds: time of the rest of a step, in seconds.
        batch_bytes: memory of a batch's images.
    """

    read_seconds: float
    other_seconds: float
    batch_bytes: int

    @property
    def share(self) -> float:
        """Return the share of a step that reading takes."""
        return self.read_seconds / max(self.read_seconds + self.other_seconds, 1e-9)


class Choice(NamedTuple):
    """A number of loader processes, and why it is that number, as a line for the user."""

    num_processes: int
    reason: str


def choose(cost: ReadingCost, *, num_cpus: int, shared_bytes: float = math.inf) -> Choice:
    """Choose the number of loader processes: enough to keep up with the rest of a step, on the CPUs of the worker.

    Args:
        cost: what reading costs the worker.
        num_cpus: CPUs that are reserved for the worker, one of which it uses itself.
        shared_bytes: free shared memory, in bytes, through which the batches come.
    """
    told = f"reading a batch takes {cost.read_seconds * 1000:.1f} ms, {100 * cost.share:.1f} % of a step"
    if cost.share <= _LEAST_SHARE:
        return Choice(0, f"no loader processes: {told}")
    if num_cpus == 1:
        return Choice(
            0,
            f"no loader processes: {told}, but a worker has one CPU; with --cluster.cpus-per-worker 2 or more, "
            "processes read ahead",
        )
    if (most := _most_in(shared_bytes, cost.batch_bytes)) < 1:
        return Choice(0, f"no loader processes: {told}, but {_SHARED_MEMORY} has no room for batches; give it more")
    needed = math.ceil(cost.read_seconds / max(cost.other_seconds, 1e-9))
    number = int(min(needed, num_cpus - 1, most))
    return Choice(number, f"{number} loader process{'' if number == 1 else 'es'} per worker: {told}")


def _most_in(shared_bytes: float, batch_bytes: int) -> float:
    """Return the number of processes whose batches take at most half of the free shared memory."""
    if math.isinf(shared_bytes):
        return math.inf
    return (shared_bytes / 2 / max(batch_bytes, 1) - 1) // _BATCHES_PER_PROCESS


class Reading(Generic[T]):
    """The items of a data set in turn, read in this process or ahead by loader processes.

    Args:
        make: function that makes the data set. It is called again for loader processes that start in between: what a
            process has opened, and its threads, are of no use to those it forks.
        indices: indices of the items to read; None for all in order.
        num_processes: number of loader processes; None to read the first items here, and then choose.
        num_cpus: CPUs that are reserved for this process.
        say: function that is given the line about the choice.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        make: Callable[[], Dataset[T]],
        indices: Sequence[int] | None = None,
        *,
        num_processes: int | None,
        num_cpus: int = 1,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._make, self._dataset, self._num_processes = make, make(), num_processes
        self._indices = range(len(self._dataset)) if indices is None else indices  # type: ignore[arg-type]
        self._num_cpus, self._say, self._clock = num_cpus, say, clock

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._indices)

    def __iter__(self) -> Iterator[T]:
        """Read the items."""
        if self._num_processes is not None:
            yield from _read(self._dataset, self._indices, self._num_processes)
            return
        dataset, indices = self._dataset, self._indices
        num_bytes, times = 0, list[tuple[float, float]]()  # when reading an item began, and when it ended
        for index in indices[:NUM_MEASURED]:
            began = self._clock()
            item = dataset[index]
            times.append((began, self._clock()))
            num_bytes = _image_bytes(item)
            yield item
        if rest := indices[NUM_MEASURED:]:
            number = self._choose(times, self._clock(), num_bytes)
            yield from _read(self._make() if number else dataset, rest, number)

    def _choose(self, times: Sequence[tuple[float, float]], now: float, num_bytes: int) -> int:
        begins = [*(began for began, _ in times), now]
        steps = [after - before for before, after in pairwise(begins)]
        reads = [ended - began for began, ended in times]
        read, step = (statistics.median(one[1:]) for one in (reads, steps))
        shared = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.exists() else math.inf
        choice = choose(
            ReadingCost(read, max(step - read, 0.0), num_bytes), num_cpus=self._num_cpus, shared_bytes=shared
        )
        self._say(choice.reason)
        return choice.num_processes


def _read(dataset: Dataset[T], indices: Sequence[int], num_processes: int) -> Iterator[T]:
    if not num_processes:
        return (dataset[index] for index in indices)
    # An item is a complete batch, so the loader must neither batch nor convert it again.
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=indices,
        num_workers=num_processes,
        prefetch_factor=_BATCHES_PER_PROCESS,
        collate_fn=_as_it_is,
    )
    return iter(loader)


def _as_it_is(item: T) -> T:
    return item


def _image_bytes(item: CaptionBatch | list[CaptionBatch]) -> int:
    """Return the memory of the images of a batch, or of a list of its parts."""
    parts = item if isinstance(item, list) else [item]
    return sum(part.images.nbytes for part in parts)
