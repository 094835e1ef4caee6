"""Order of training: how long it takes to lay out an epoch, what it holds in memory, and how it travels.

The peer is what PyTorch's ``DistributedSampler`` does in each process and epoch: a permutation of all samples, as a
list. It is measured on fewer samples, because its list of five billion numbers would take 200 GB.
"""

import pickle
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch

from shards.order import SampleOrder
from tests.benchmarks.measuring import Benchmark, Row, interleaved

_SAMPLES_PER_SHARD, _WINDOW_SHARDS, _BATCH = 1000, 16, 1024


def order_of(num_shards: int) -> SampleOrder:
    """Return the order of so many shards of 1,000 samples."""
    sizes = np.full(num_shards, _SAMPLES_PER_SHARD)
    return SampleOrder(sizes, seed=0, window_shards=_WINDOW_SHARDS)


def first_batch(order: SampleOrder, start: int) -> np.ndarray:
    """Return the sample numbers of the batch at a position."""
    return order.at(start, start + _BATCH)


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU time of a call in seconds, and its result."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def measure(*, num_shards: int = 5_000_000, num_shards_of_peer: int = 10_000) -> Iterator[Row]:
    """Build an order, read its first batch, and send it to another process.

    Args:
        num_shards: number of shards of 1,000 samples.
        num_shards_of_peer: the same where the peer is measured, too.
    """
    samples = f"{num_shards * _SAMPLES_PER_SHARD:,} samples in {num_shards:,} shards"
    building, order = seconds_of(lambda: order_of(num_shards))
    yield Row(what=f"build the order of {samples}", unit="s", ours=building, less_is_better=True)
    sending, content = seconds_of(lambda: pickle.dumps(order))
    receiving, order = seconds_of(lambda: pickle.loads(content))
    note = f"{len(content) / 1e6:.2g} MB"
    yield Row(what="send it to another process", unit="s", ours=sending + receiving, less_is_better=True, note=note)
    tracemalloc.start()
    first_batch(order, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    first, _ = seconds_of(lambda: first_batch(pickle.loads(content), 0))
    note = f"{peak / 1e6:.0f} MB at its peak, besides the order"
    yield Row(what="its first batch, in that process", unit="s", ours=first, less_is_better=True, note=note)
    num_samples = num_shards_of_peer * _SAMPLES_PER_SHARD
    fewer = order_of(num_shards_of_peer)
    starts = count(0, num_samples)
    seconds = interleaved(
        {
            "ours": lambda: first_batch(fewer, next(starts)),
            "torch.randperm, as DistributedSampler": lambda: torch.randperm(num_samples).tolist()[:_BATCH],
        },
        rounds=3,
    )
    yield Row.of_seconds(f"the first batch of an epoch of {num_samples:,} samples", seconds)


BENCHMARK = Benchmark(measure, small={"num_shards": 1000, "num_shards_of_peer": 100})
