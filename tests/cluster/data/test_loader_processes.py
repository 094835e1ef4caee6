import re
from types import SimpleNamespace

import pytest
from torch.utils.data import Dataset

from captioning.data.batches import blank_batch
from cluster.data.loader_processes import NUM_MEASURED, Reading, ReadingCost, choose

SLOW = ReadingCost(read_seconds=0.03, other_seconds=0.01, batch_bytes=1000)


@pytest.mark.parametrize(
    ("cost", "options", "number", "reason"),
    [
        (SLOW, {"num_cpus": 8}, 3, "3 loader processes per worker: reading a batch takes 30.0 ms, 75.0 % of a step"),
        (SLOW, {"num_cpus": 2}, 1, "1 loader process per worker: "),
        (SLOW, {"num_cpus": 1}, 0, r"but a worker has one CPU; with --cluster.cpus-per-worker 2 or more"),
        (SLOW._replace(read_seconds=0.0002), {"num_cpus": 8}, 0, r"takes 0.2 ms, 2.0 % of a step$"),
        (SLOW._replace(other_seconds=0.0), {"num_cpus": 8}, 7, "100.0 % of a step"),
        # Half of the memory holds two batches for each process, and the one in use.
        (SLOW, {"num_cpus": 8, "shared_bytes": 10_000}, 2, "2 loader processes"),
        (SLOW, {"num_cpus": 8, "shared_bytes": 5_000}, 0, "but /dev/shm has no room for batches; give it more"),
    ],
)
def test_as_many_processes_read_as_keep_up(cost, options, number, reason):
    choice = choose(cost, **options)
    assert (choice.num_processes, re.search(reason, choice.reason) is None) == (number, False)


class Counted(Dataset):
    """Batches whose reading takes a time of its own on a clock that counts it."""

    def __init__(self, clock, seconds):
        self._clock, self._seconds = clock, seconds

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self._clock.now += self._seconds if index else 100  # the first one opens files
        return blank_batch(2)._replace(keys=(f"{index}",))


@pytest.mark.parametrize(
    ("num_processes", "said"),
    [(0, []), (None, ["no loader processes: reading a batch takes 10.0 ms, 1.0 % of a step"])],
)
def test_what_reading_takes_is_measured_and_said(num_processes, said):
    clock, lines, read = SimpleNamespace(now=0.0), [], []
    options = {"num_processes": num_processes, "num_cpus": 4, "say": lines.append, "clock": lambda: clock.now}
    for batch in Reading(lambda: Counted(clock, 0.01), **options):
        clock.now += 0.99
        read += batch.keys
    assert (read, lines) == ([f"{index}" for index in range(10)], said)


def test_nothing_is_said_of_fewer_batches_than_are_measured():
    lines = []
    clock = SimpleNamespace(now=0.0)
    batches = Reading(lambda: Counted(clock, 1), range(NUM_MEASURED), num_processes=None, say=lines.append)
    assert (len(batches), len(list(batches)), lines) == (NUM_MEASURED, NUM_MEASURED, [])
