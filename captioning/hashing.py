"""Counter-based random numbers: a hash of seed and coordinates instead of a generator's state.

A number depends only on its seed and coordinates, not on the process that draws it or on the order of draws. The hash
is splitmix64 (Steele, Lea and Flood, 2014, https://doi.org/10.1145/2714064.2660195) on int64 tensors; their arithmetic
wraps around like unsigned arithmetic.
"""

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


# The increment (2**64 over the golden ratio, odd) and the two multipliers of splitmix64.
_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_UNIFORM_BITS = 24  # float32 represents every multiple of 2**-24 below 1
_UNITS_PER_HASH, _UNIT_VALUES = 4, 2**16


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Shift int64 numbers to the right as if they were unsigned (``>>`` copies the sign bit)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(value: Tensor) -> Tensor:
    """Hash int64 numbers of any shape to pseudo-random int64 numbers. The hash is a bijection."""
    mixed = value + _GAMMA
    mixed ^= _shift_right(mixed, 30)
    mixed *= _FIRST
    mixed ^= _shift_right(mixed, 27)
    mixed *= _SECOND
    mixed ^= _shift_right(mixed, 31)
    return mixed


def fold(seed: int, *coordinates: Tensor | int) -> Tensor:
    """Hash a seed and coordinates to int64 keys; tensor coordinates broadcast."""
    key = splitmix64(torch.tensor(_signed(seed % 2**64)))
    for coordinate in coordinates:
        # A key without dimensions stays in CPU memory: a device takes it as a scalar, and need not be waited for.
        key = splitmix64(key ^ coordinate)
    return key


def content_keys(values: Tensor) -> Tensor:
    """Hash the content of each row of a tensor of any type, (B, ...), to an int64 key, (B,); the same on any device."""
    rows = values.detach().cpu().flatten(1).contiguous().view(torch.uint8).numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return torch.tensor([int.from_bytes(one, "little", signed=True) for one in digests], dtype=torch.int64)


def uniform(key: Tensor) -> Tensor:
    """Return a float32 number in [0, 1) for each key, in the shape of ``key``."""
    return _shift_right(splitmix64(key), 64 - _UNIFORM_BITS).float() / 2**_UNIFORM_BITS


class DropoutKeys(NamedTuple):
    """Hash keys of a batch's captions, from which dropout is drawn.

    Attributes:
        rows: (N,) int64 hash of (seed, position, caption) for each caption.
    """

    rows: Tensor

    @classmethod
    def of(cls, seed: int, position: Tensor, caption: Tensor) -> "DropoutKeys":
        """Return the keys of N captions.

        Args:
            seed: seed of the training.
            position: (N,) int64 position of each caption's image in the training stream.
            caption: (N,) int64 number of each caption within its image.
        """
        return cls(fold(seed, position, caption))

    def of_words(self, caption: Tensor, word: Tensor) -> "DropoutKeys":
        """Return the keys of P words, by the row of each one's caption and its number in it, (P,) int64 each."""
        return DropoutKeys(splitmix64(splitmix64(self.rows)[caption] ^ word))


def dropout(values: Tensor, rate: float, keys: DropoutKeys | None, *, site: int) -> Tensor:
    """Drop units by a hash of (caption, site, unit), and scale up the others, as torch's dropout does.

    A unit's random number does not depend on T, so padding changes nothing. Four units share one hash, 16 bits each,
    which makes this faster on a CPU than torch's own dropout.

    Args:
        values: (N, T, H) float; a unit is one of the T x H values of a caption.
        rate: fraction of units to drop, from 0 to below 1, in steps of 2**-16.
        keys: keys of the N captions; None drops nothing.
        site: number of this dropout layer within the model.

    Returns:
        (N, T, H) values; those of dropped units are 0.
    """
    if keys is None or rate == 0:
        return values
    rows = splitmix64(keys.rows ^ site)
    num_units = math.prod(values.shape[1:])
    counters = torch.arange(-(-num_units // _UNITS_PER_HASH), device=values.device) * _GAMMA
    draws = splitmix64(rows[:, None] + counters).view(torch.int16)[:, :num_units]  # uniform from -2**15 on
    is_kept = (draws >= int(rate * _UNIT_VALUES) - _UNIT_VALUES // 2).view(values.shape)
    return values * is_kept.to(values.dtype).mul_(1 / (1 - rate))
