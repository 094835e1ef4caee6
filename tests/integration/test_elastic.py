"""Any number of workers at any time: samples come once an epoch, in the same batches, through every change."""

from collections import Counter
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.config import ModelConfig, TrainingConfig
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from shards.order import SampleOrder, rank_share

BATCH = 40
MODEL = ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=32)
property_test = settings(max_examples=40, deadline=None, derandomize=True)


def consumed(order, groups, *, batch=BATCH):
    """Return the samples that groups of (world size, steps) read one after another, rank by rank."""
    read, step = [], 0
    for world_size, num_steps in groups:
        for _ in range(num_steps):
            shares = [rank_share(step * batch, (step + 1) * batch, rank, world_size) for rank in range(world_size)]
            read += [order.at(share.start, share.stop) for share in shares]
            step += 1
    return np.concatenate(read)


def test_fifteen_workers_give_way_to_any_other_number():
    order = SampleOrder([70, 3, 127], seed=5, window_shards=2)
    expected = order.at(0, 10 * BATCH).tolist()
    read = {size: consumed(order, [(15, 3), (size, 7)]).tolist() for size in range(2, 41)}
    assert [size for size, found in read.items() if found != expected] == []


@property_test
@given(st.lists(st.tuples(st.integers(1, BATCH), st.integers(0, 6)), min_size=1, max_size=8).filter(
    lambda groups: sum(steps for _, steps in groups) > 0
))  # fmt: skip
def test_any_changes_at_any_steps_leave_the_stream_as_it_is(groups):
    order = SampleOrder([33, 50, 1, 16], seed=9, window_shards=3)
    steps = sum(num_steps for _, num_steps in groups)
    assert consumed(order, groups).tolist() == order.at(0, steps * BATCH).tolist()


@pytest.mark.parametrize("sizes", [(8, 2, 8), (2, 3, 1, 2), (1, 24)])
def test_every_image_is_read_once_an_epoch_through_changes_within_it(drawn_shards, sizes):
    shard_set = ShardSet(drawn_shards)
    config = TrainingConfig(batch_size=24)
    stops = [0, *accumulate([2, 1, 1, 1][: len(sizes) - 1]), 5]  # 5 steps of 24 are an epoch of 120
    keys = [
        key
        for world_size, (start, stop) in zip(sizes, pairwise(stops), strict=True)
        for rank in range(world_size)
        for parts in training_batches(
            shard_set, "train", model=MODEL, config=config, ranks=(rank, world_size), steps=range(start, stop)
        )
        for part in parts
        for key in part.keys
    ]
    assert (len(keys), set(Counter(keys).values())) == (120, {1})
