"""Randomness as a hash of coordinates: the same numbers for the same place, whoever asks, in whatever order.

splitmix64 (Steele, Lea and Flood, 2014, https://doi.org/10.1145/2714064.2660195) on int64 tensors, whose arithmetic
wraps as unsigned arithmetic does.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_UNIFORM_BITS = 24
_UNITS_PER_HASH, _UNIT_VALUES = 4, 2**16


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Shift without copying the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(value: Tensor) -> Tensor:
    """Mix int64 numbers, any shape, into numbers that look random; a bijection."""
    mixed = value + _GAMMA
    mixed ^= _shift_right(mixed, 30)
    mixed *= _FIRST
    mixed ^= _shift_right(mixed, 27)
    mixed *= _SECOND
    mixed ^= _shift_right(mixed, 31)
    return mixed


def fold(seed: int, *coordinates: Tensor | int) -> Tensor:
    """Hash a seed and coordinates, int64 tensors that broadcast, into one key for each place."""
    key = splitmix64(torch.tensor(_signed(seed % 2**64)))
    for coordinate in coordinates:
        key = splitmix64(key.to(coordinate.device) ^ coordinate if isinstance(coordinate, Tensor) else key ^ coordinate)
    return key


def uniform(key: Tensor) -> Tensor:
    """Turn keys into float32 numbers in [0, 1), the same shape."""
    return _shift_right(splitmix64(key), 64 - _UNIFORM_BITS).float() / 2**_UNIFORM_BITS


class DropoutKeys(NamedTuple):
    """Where in the training stream each row of a batch of captions stands.

    Attributes:
        rows: (N,) int64, the hash of (seed, position, caption).
    """

    rows: Tensor

    @classmethod
    def of(cls, seed: int, position: Tensor, caption: Tensor) -> "DropoutKeys":
        """Hash the seed, positions (N,) int64 in the stream and caption numbers (N,) int64 within their image."""
        return cls(fold(seed, position, caption))


def dropout(values: Tensor, rate: float, keys: DropoutKeys | None, *, site: int) -> Tensor:
    """Drop units by a hash of (row, site, unit), and scale up the others.

    A unit's number does not depend on T, so that padding changes nothing. Four units share a hash, 16 bits each, for a
    quarter of the cost: on a CPU it is less than that of torch's own dropout.

    Args:
        values: (N, T, H) float; a unit is one of the T x H.
        rate: share that is dropped, 0 up to below 1, to within 2**-16.
        keys: of the N rows; None drops nothing.
        site: which dropout of the model this is.

    Returns:
        (N, T, H) like ``values``.
    """
    if keys is None or rate == 0:
        return values
    rows = splitmix64(keys.rows ^ site)
    num_units = math.prod(values.shape[1:])
    counters = torch.arange(-(-num_units // _UNITS_PER_HASH), device=values.device) * _GAMMA
    draws = splitmix64(rows[:, None] + counters).view(torch.int16)[:, :num_units]  # uniform from -2**15 on
    is_kept = (draws >= int(rate * _UNIT_VALUES) - _UNIT_VALUES // 2).view(values.shape)
    return values * is_kept.to(values.dtype).mul_(1 / (1 - rate))
