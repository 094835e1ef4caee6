import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.order import SampleOrder, _ranked, rank_share, shuffled, splitmix64
from tests.support.case_table import each_case

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) > 0)
property_test = settings(max_examples=60, deadline=None, derandomize=True)


def make_order(sizes, seed=3, window_shards=2):
    return SampleOrder(sizes, seed=seed, window_shards=window_shards)


def test_splitmix64_gives_the_published_sequence():
    # The first outputs of the reference generator seeded with 0 are the mixes of 0 and of one step of the gamma.
    gamma = np.uint64(0x9E3779B97F4A7C15)
    mixed = splitmix64(np.array([0, gamma], np.uint64))
    assert [hex(value) for value in mixed.tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


@property_test
@given(sizes=SIZES, seed=st.integers(0, 2**64 - 1), window=st.integers(1, 15), epoch=st.integers(0, 1000))
def test_every_epoch_covers_every_sample_exactly_once(sizes, seed, window, epoch):
    order = SampleOrder(sizes, seed=seed, window_shards=window)
    epoch_samples = order.at(epoch * order.num_samples, (epoch + 1) * order.num_samples)
    assert sorted(epoch_samples.tolist()) == list(range(sum(sizes)))


@property_test
@given(sizes=SIZES, start=st.integers(0, 500), length=st.integers(0, 200), cut=st.integers(0, 200))
def test_the_stream_resumes_at_any_position(sizes, start, length, cut):
    whole = make_order(sizes).at(start, start + length)
    cut = min(cut, length)
    resumed = make_order(sizes).at(start + cut, start + length)
    assert whole[cut:].tolist() == resumed.tolist()


@property_test
@given(sizes=SIZES, batch=st.integers(40, 100), step=st.integers(0, 20), world_size=st.integers(1, 40))
def test_any_number_of_workers_sees_the_same_global_batch(sizes, batch, step, world_size):
    order = make_order(sizes)
    start, stop = step * batch, (step + 1) * batch
    expected = order.at(start, stop).tolist()
    shares = [rank_share(start, stop, rank, world_size) for rank in range(world_size)]
    assert [number for share in shares for number in order.at(share.start, share.stop)] == expected


@property_test
@given(start=st.integers(0, 10**12), batch=st.integers(1, 4096), data=st.data())
def test_shares_are_contiguous_and_differ_by_one_at_most(start, batch, data):
    world_size = data.draw(st.integers(1, min(batch, 40)))
    shares = [rank_share(start, start + batch, rank, world_size) for rank in range(world_size)]
    assert all(low.stop == high.start for low, high in pairwise(shares))
    assert (shares[0].start, shares[-1].stop) == (start, start + batch)
    sizes = [len(share) for share in shares]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_differ():
    order = make_order([50, 50])
    first, second = order.at(0, 100).tolist(), order.at(100, 200).tolist()
    assert first != second
    assert first != make_order([50, 50], seed=4).at(0, 100).tolist()


def test_a_window_mixes_its_shards_and_no_other():
    order = make_order([10, 10, 10, 10], window_shards=2)
    shards_of_first_window = {number // 10 for number in order.at(0, 20).tolist()}
    assert len(shards_of_first_window) == 2


def test_the_order_is_the_same_for_ever():
    # Recorded once: a change of these numbers would make old checkpoints resume on other samples.
    assert SampleOrder([4, 3, 5], seed=7, window_shards=2).at(0, 16).tolist() == RECORDED


RECORDED = [3, 6, 4, 2, 0, 1, 5, 7, 10, 8, 11, 9, 11, 8, 3, 10]


@pytest.mark.parametrize("shards_of_bucket", [1, 4, 2**14])
def test_sorting_a_part_gives_the_order_of_sorting_all(monkeypatch, shards_of_bucket):
    monkeypatch.setattr("shards.order._SHARDS_OF_BUCKET", shards_of_bucket)
    for seed in range(1, 40, 2):
        sizes = np.random.default_rng(seed).integers(0, 6, 1 + seed)
        sizes[-1] += 1
        order = SampleOrder(sizes, seed=seed, window_shards=1 + seed % 5)
        epochs = [fully_sorted(sizes, seed=seed, epoch=epoch, window_shards=1 + seed % 5) for epoch in range(3)]
        assert order.at(0, 3 * order.num_samples).tolist() == np.concatenate(epochs).tolist()


def fully_sorted(sizes, *, seed, epoch, window_shards):
    """Return the samples of an epoch in order, of shards that are sorted all at once."""
    first = np.concatenate(([0], np.cumsum(sizes)))
    ordered = shuffled(np.arange(len(sizes)), seed=seed, epoch=epoch, domain=1)
    windows = [ordered[start : start + window_shards] for start in range(0, len(ordered), window_shards)]
    samples = [np.concatenate([np.arange(first[one], first[one + 1]) for one in window]) for window in windows]
    return np.concatenate([shuffled(window, seed=seed, epoch=epoch, domain=2) for window in samples])


def test_an_order_travels_to_another_process():
    order = make_order([5, 6])
    order.at(0, 11)
    assert pickle.loads(pickle.dumps(order)).at(3, 30).tolist() == order.at(3, 30).tolist()


def test_an_order_travels_in_a_byte_a_small_shard():
    assert len(pickle.dumps(make_order([3] * 100_000))) < 101_000


def test_shuffles_are_uniform_over_positions():
    order = make_order([6], window_shards=1)
    firsts = np.bincount([order.at(epoch * 6, epoch * 6 + 1)[0] for epoch in range(1800)], minlength=6)
    assert np.abs(firsts - 300).max() < 79  # five standard deviations


@each_case("sizes", [[], [0, 0], [3, -1]])
def test_sizes_without_a_sample_are_refused(sizes):
    with pytest.raises(ValueError, match="hold no sample to order"):
        SampleOrder(sizes, seed=0, window_shards=1)


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match="window of 0 shards"):
        SampleOrder([1], seed=0, window_shards=0)


def test_backward_positions_are_refused():
    with pytest.raises(ValueError, match="not a valid range"):
        make_order([3]).at(2, 1)


def test_a_batch_smaller_than_the_number_of_workers_is_refused():
    with pytest.raises(ValueError, match="a batch of 3 samples is too small for 4 workers"):
        rank_share(0, 3, 0, 4)


def test_an_unknown_rank_is_refused():
    with pytest.raises(ValueError, match="rank 4 does not exist among 4 workers"):
        rank_share(0, 8, 4, 4)


@each_case(
    ("start", "inside", "stop"),
    [
        (0, 0, 8),
        (0, 3, 8),
        (4, 4, 10),  # the next window is the last, and shorter
        (8, 9, 14),  # the next window is the first of the next epoch
        (10, 11, 18),
    ],
)
def test_upcoming_shards_are_those_of_a_window_and_the_next(start, inside, stop):
    order = make_order([2] * 5)  # windows of four, four and two samples
    ahead, read = order.upcoming_shards(inside), {number // 2 for number in order.at(start, stop).tolist()}
    assert (set(ahead), {number // 2 for number in order.at(inside, inside + 1)} <= set(ahead[:2])) == (read, True)


@pytest.mark.parametrize("num_keys", [0, 1, 2, 5, 1000])
@pytest.mark.parametrize("num_bits", [64, 20, 14])  # with few bits, keys differ only in those that hold the numbers
def test_keys_are_ranked_as_numpy_sorts_them(num_keys, num_bits):
    generator = np.random.default_rng(num_keys + num_bits)
    keys = generator.permutation(np.unique(generator.integers(0, 2**num_bits, num_keys, dtype=np.uint64)))
    assert np.array_equal(_ranked(keys), np.argsort(keys))
