"""Randomness as a hash of coordinates: the same numbers for the same place, whoever asks, in whatever order.

splitmix64 (Steele, Lea and Flood, 2014, https://doi.org/10.1145/2714064.2660195) on int64 tensors, whose arithmetic
wraps as unsigned arithmetic does.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_UNIFORM_BITS = 24


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Shift without copying the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(value: Tensor) -> Tensor:
    """Mix int64 numbers, any shape, into numbers that look random; a bijection."""
    mixed = value + _GAMMA
    mixed = (mixed ^ _shift_right(mixed, 30)) * _FIRST
    mixed = (mixed ^ _shift_right(mixed, 27)) * _SECOND
    return mixed ^ _shift_right(mixed, 31)


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

    Args:
        values: (N, T, H); a unit is one of the T x H.
        rate: share that is dropped.
        keys: of the N rows; None drops nothing.
        site: which dropout of the model this is.

    Returns:
        (N, T, H) like ``values``.
    """
    if keys is None or rate == 0:
        return values
    rows = splitmix64(keys.rows ^ site)
    units = torch.arange(values[0].numel(), device=values.device) * _GAMMA
    hashed = _shift_right(splitmix64(rows[:, None] + units), 64 - _UNIFORM_BITS)
    is_kept = (hashed >= int(rate * 2**_UNIFORM_BITS)).view_as(values)
    return values * is_kept / (1 - rate)
