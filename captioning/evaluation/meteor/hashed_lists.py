"""Lists of integers by text, on disk: texts are known by a 64-bit hash, and arrays are mapped, not read.

The hash of a text is the polynomial sum of byte_i * BASE**i modulo 2**64. It is computed for all pieces of a long text
from one cumulative sum, which is what makes an index of five million phrases a matter of seconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

_BASE = 0x9E3779B97F4A7C15  # odd, thus invertible modulo 2**64; no two phrases of METEOR's table collide
_INVERSE = pow(_BASE, -1, 2**64)
_ARRAYS = ("keys", "bounds", "values")


class TextHasher:
    """Hashes of pieces of a text.

    Args:
        text: (N,) uint8 bytes of the text.
    """

    def __init__(self, text: np.ndarray) -> None:
        self._inverses = _powers(_INVERSE, len(text) + 1)
        self._sums = np.zeros(len(text) + 1, np.uint64)
        np.cumsum(text * _powers(_BASE, len(text)), out=self._sums[1:])

    def hash(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the hashes, (P,) uint64, of the pieces from ``starts`` up to ``ends``, (P,) positions of bytes."""
        return (self._sums[ends] - self._sums[starts]) * self._inverses[starts]


def hash_text(text: str) -> int:
    """Return the hash of a text."""
    content = np.frombuffer(text.encode(), np.uint8)
    return int(TextHasher(content).hash(np.array([0]), np.array([len(content)]))[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class HashedLists:
    """A map from hashes of texts to lists of integers.

    Attributes:
        keys: (K,) uint64 hashes, ascending.
        bounds: (K, 2) uint32 first and last + 1 position of each key's list within ``values``.
        values: (V,) uint64 or uint32 integers of all lists.
    """

    keys: np.ndarray
    bounds: np.ndarray
    values: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> "HashedLists":
        """Map the lists that ``save`` wrote to a folder."""
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS})

    @classmethod
    def of(cls, lists: Mapping[int, list[int]], dtype: type[np.unsignedinteger]) -> "HashedLists":
        """Return lists by their keys' hashes."""
        hashes = sorted(lists)
        stops = np.cumsum([0, *(len(lists[key]) for key in hashes)])
        return cls(
            keys=np.array(hashes, np.uint64),
            bounds=np.stack((stops[:-1], stops[1:]), axis=1).astype(np.uint32),
            values=np.array([value for key in hashes for value in lists[key]], dtype),
        )

    def save(self, folder: Path) -> None:
        """Write the lists to a folder, created if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Return the number, from 0, of the key of each hash, (P,), and -1 for those that are no key."""
        numbers = np.searchsorted(self.keys, hashes).clip(max=len(self.keys) - 1)
        return np.where(self.keys[numbers] == hashes, numbers, -1)

    def list_of(self, number: int) -> list[int]:
        """Return the list of a key, by the key's number."""
        start, stop = self.bounds[number].tolist()
        return self.values[start:stop].tolist()

    def get(self, key: int) -> list[int]:
        """Return the list of a key, by its hash; empty for a hash that is no key."""
        number = int(self.find(np.array([key], np.uint64))[0])
        return self.list_of(number) if number >= 0 else []


def hash_lines(chunks: Iterator[bytes]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Hash the lines of a long text.

    Args:
        chunks: the text, in pieces; chunks of about 128 KiB stay in a processor's cache and are the fastest.

    Yields:
        (L,) uint64 hashes of the next lines, and (L,) int32 numbers of spaces in them.
    """
    rest = b""
    for chunk in chunks:
        whole, newline, rest = (rest + chunk).rpartition(b"\n")
        text = np.frombuffer(whole + newline, np.uint8)
        ends = np.flatnonzero(text == ord("\n"))
        starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
        spaces = np.cumsum(text == ord(" "), dtype=np.int32)
        yield TextHasher(text).hash(starts, ends), spaces[ends] - spaces[starts]


def _powers(base: int, count: int) -> np.ndarray:
    """Return the first powers of a number modulo 2**64, (count,) uint64."""
    size = 1 << max(count - 1, 0).bit_length()
    return _cached_powers(base, max(size, 2**18) if count <= 2**18 else size)[:count]


@cache
def _cached_powers(base: int, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)
