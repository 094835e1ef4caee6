import numpy as np
import pytest
import torch

from captioning.hashing import DropoutKeys, content_keys, dropout, fold, splitmix64, uniform
from tests.support.case_table import each_case

GAMMA = 0x9E3779B97F4A7C15


def keys_of(positions, captions, seed=3):
    return DropoutKeys.of(seed, torch.tensor(positions), torch.tensor(captions))


def mask(keys, num_words, num_units, *, rate=0.5, site=1):
    """Return a mask of the kept units: (N, T, H) bool."""
    return dropout(torch.ones(len(keys.rows), num_words, num_units), rate, keys, site=site) != 0


def reference(values):
    """Compute splitmix64 as its published C code does, on unsigned numbers."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(GAMMA)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


@each_case(
    ("count", "expected"),
    [(0, 0xE220A8397B1DCDAF), (1, 0x6E789E6AA1B965F4), (2, 0x06C45D188009454F), (3, 0xF88BB8A8724C81EC)],
)
def test_splitmix64_gives_the_published_numbers(count, expected):
    state = torch.from_numpy(np.array(count * GAMMA % 2**64, np.uint64).view(np.int64))
    assert int(splitmix64(state)) % 2**64 == expected


def test_splitmix64_agrees_with_unsigned_arithmetic():
    values = np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64)
    values[:4] = 0, 1, 2**63, 2**64 - 1
    mixed = splitmix64(torch.from_numpy(values.view(np.int64)))
    np.testing.assert_array_equal(mixed.numpy().view(np.uint64), reference(values))


def test_splitmix64_leaves_its_argument_as_it_is():
    values = torch.arange(5)
    splitmix64(values)
    assert values.tolist() == [0, 1, 2, 3, 4]


def test_a_key_is_a_chain_of_hashes():
    expected = reference(reference(reference(np.uint64(2**64 - 5)) ^ np.uint64(12)) ^ np.uint64(4))
    assert int(fold(-5, torch.tensor([12]), 4)) % 2**64 == expected


def test_keys_broadcast_to_one_for_each_place():
    grid = fold(0, torch.arange(3)[:, None], torch.arange(4))
    assert grid.tolist() == [[int(fold(0, row, column)) for column in range(4)] for row in range(3)]


def test_keys_of_other_places_differ():
    grid = [fold(seed, torch.arange(50)[:, None], torch.arange(50)).flatten() for seed in range(3)]
    assert len(torch.cat(grid).unique()) == 7_500


def test_uniform_numbers_fill_the_interval_evenly():
    numbers = uniform(torch.arange(100_000))
    counts = torch.histc(numbers, bins=20, min=0, max=1)
    # Chi-square with 19 degrees of freedom: 43.8 is exceeded once in a thousand.
    assert ((counts - 5_000) ** 2 / 5_000).sum() < 43.8


def test_uniform_numbers_stay_below_one():
    # The hash is a bijection, so some key has every bit set; a million of them come close.
    assert 0.99999 < uniform(torch.arange(1_000_000)).max() < 1


@each_case("rate", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_its_share_in_every_lane_of_a_hash(rate):
    kept = mask(keys_of(range(200), [0] * 200), 10, 500, rate=rate).view(-1, 4)
    deviation = (rate * (1 - rate) / len(kept)) ** 0.5
    assert (kept.double().mean(0) - (1 - rate)).abs().max() < 4 * deviation


def test_units_are_dropped_independently_of_their_neighbours():
    kept = mask(keys_of(range(200), [0] * 200), 10, 500).view(200, -1).double() - 0.5
    correlations = torch.stack([(kept[:, lag:] * kept[:, : 5000 - lag]).mean() * 4 for lag in range(1, 9)])
    assert correlations.abs().max() < 4e-3  # four standard deviations of a million pairs


@each_case(
    "others",
    [
        {"positions": [9, 4], "captions": [0, 0]},
        {"positions": [4, 5], "captions": [1, 0]},
        {"positions": [4, 5], "captions": [0, 0], "seed": 4},
    ],
)
def test_another_position_caption_or_seed_has_another_mask(others):
    first = mask(keys_of([4, 5], [0, 0]), 5, 32)[0]
    assert not torch.equal(first, mask(keys_of(**others), 5, 32)[0])


def test_another_site_has_another_mask():
    keys = keys_of([4], [0])
    assert not torch.equal(mask(keys, 5, 32, site=1), mask(keys, 5, 32, site=2))


@each_case("num_units", [1, 6, 7, 32])  # four units share a hash: 7 x 5 does not divide
@each_case("num_words", [5, 6, 9])
def test_a_captions_mask_does_not_depend_on_its_batch_or_padding(num_units, num_words):
    alone = mask(keys_of([4], [2]), 5, num_units)[0]
    batched = mask(keys_of([8, 4, 4], [2, 1, 2]), num_words, num_units)[2, :5]
    assert torch.equal(alone, batched)


def test_units_beside_and_below_one_another_differ():
    kept = mask(keys_of([4], [2]), 40, 64)[0]
    assert (len(kept.unique(dim=0)), kept.unique(dim=1).shape[1]) == (40, 64)


@each_case("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kept_units_and_their_gradients_are_scaled_up(dtype):
    values = torch.rand(3, 4, 8, dtype=dtype).add(1).requires_grad_()
    dropout(values, 0.75, keys_of([0, 1, 2], [0, 0, 0]), site=1).sum().backward()
    assert set(values.grad.unique().tolist()) == {0.0, 4.0}


def test_dropped_values_are_those_whose_gradient_is_zero():
    values = torch.rand(3, 4, 8).add(1).requires_grad_()
    dropped = dropout(values, 0.4, keys_of([0, 1, 2], [0, 0, 0]), site=1)
    dropped.sum().backward()
    torch.testing.assert_close(dropped, values * values.grad)


@pytest.mark.parametrize(("rate", "keys"), [(0.0, keys_of([0], [0])), (0.5, None)])
def test_without_rate_or_keys_nothing_is_dropped(rate, keys):
    values = torch.rand(1, 4, 8)
    assert dropout(values, rate, keys, site=1) is values


@each_case("kind", [torch.uint8, torch.float32, torch.float16])
def test_a_key_of_content_depends_on_its_row_alone(kind):
    values = torch.arange(24).view(4, 2, 3).to(kind)
    values[3] = values[0]
    keys = content_keys(values)
    assert torch.equal(content_keys(values[[2, 0]]), keys[[2, 0]])
    assert (keys[0] == keys[3], len(set(keys.tolist()))) == (True, 3)


def test_the_keys_of_content_stay():
    assert content_keys(torch.tensor([[1, 2, 3]], dtype=torch.uint8)).tolist() == [3881955430054305505]
