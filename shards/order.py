"""Order of training: position in the endless training stream -> sample number.

Position p belongs to epoch p // N, where N is the number of samples. In each epoch the shards are shuffled, then the
samples within every window of consecutive shards. The sort keys are hashes of (seed, epoch, index) by splitmix64
(Steele, Lea and Flood, 2014, https://doi.org/10.1145/2714064.2660195), so the order depends on these numbers alone and
not on a library's random generator. Memory is O(shards + samples of a window).

The shards of an epoch are not sorted as a whole, which would take most of the time until a first batch: they are put
into buckets by the highest bits of their keys, and a bucket is sorted when a window of it is read.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the increment of splitmix64: 2**64 over the golden ratio, made odd
_CHUNK = 2**15
_SHARDS_OF_BUCKET, _BUCKETS_KEPT = 2**14, 4  # sorted in a millisecond; two windows may be of two buckets each
_SHARD_DOMAIN, _SAMPLE_DOMAIN = 1, 2  # shards.writer uses 3


def splitmix64(value: np.ndarray) -> np.ndarray:
    """Hash 64-bit integers to pseudo-random 64-bit integers; a bijection.

    Args:
        value: uint64, any shape.

    Returns:
        uint64, the same shape.
    """
    mixed = value + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def shuffled(indices: np.ndarray, *, seed: int, epoch: int, domain: int) -> np.ndarray:
    """Sort ``indices`` by a hash of (seed, epoch, domain, index).

    Args:
        indices: (N,) non-negative integers, without repetition.
        seed: seed of the permutation, below 2**64.
        epoch: number of the epoch, below 2**64.
        domain: number that makes permutations of different things differ under one seed.
    """
    return indices[_ranked(_keys_of(indices, seed=seed, epoch=epoch, domain=domain))]


def _keys_of(indices: np.ndarray, *, seed: int, epoch: int, domain: int) -> np.ndarray:
    """Return the sort keys of indices, (N,) uint64, all different; arguments as in ``shuffled``."""
    state = np.zeros(1, np.uint64)
    # Hashed one after the other, so that (seed 1, epoch 2) and (seed 2, epoch 1) differ.
    for part in (seed, epoch, domain):
        state = splitmix64(state ^ np.uint64(part % 2**64))
    keys = np.empty(len(indices), np.uint64)
    for start in range(0, len(indices), _CHUNK):  # which stays in a core's cache
        part = indices[start : start + _CHUNK].astype(np.uint64)
        keys[start : start + _CHUNK] = splitmix64(splitmix64(state + part * _GAMMA))
    return keys


def _ranked(keys: np.ndarray) -> np.ndarray:
    """Return the same as ``np.argsort(keys)``, in half of the time: the numbers sort along in the keys' lowest bits.

    Args:
        keys: (N,) uint64, all different.
    """
    low = np.uint64((1 << len(keys).bit_length()) - 1)
    packed = keys & ~low
    packed |= np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    ranked = (packed & low).astype(np.int64)
    for at in np.flatnonzero(packed[1:] ^ packed[:-1] <= low):  # a few keys that differ in their lowest bits alone
        first, last = np.searchsorted(packed, (packed[at] & ~low, packed[at] | low))
        ranked[first : last + 1] = sorted(ranked[first : last + 1], key=keys.__getitem__)
    return ranked


class _ShuffledShards:
    """The shards of an epoch in their order, of which no more is sorted than is asked for.

    Args:
        sizes: (N,) int64 number of samples of each shard.
        seed: seed of the shuffle.
        epoch: number of the epoch.
    """

    def __init__(self, sizes: np.ndarray, *, seed: int, epoch: int) -> None:
        self._sizes = sizes
        self._keys = _keys_of(np.arange(len(sizes)), seed=seed, epoch=epoch, domain=_SHARD_DOMAIN)
        # A bucket is the shards whose keys have the same highest bits; numpy shifts no number by all of its 64.
        self._shift = np.uint64(63 - (len(sizes) // _SHARDS_OF_BUCKET).bit_length())
        buckets = (self._keys >> self._shift).view(np.int64)
        self._rank_ends = np.cumsum(np.bincount(buckets))
        # Sums in floating point, which are exact below 2**53 samples.
        self._sample_ends = np.cumsum(np.bincount(buckets, weights=sizes).astype(np.int64))
        self._bucket = lru_cache(maxsize=_BUCKETS_KEPT)(self._sort_bucket)

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self._sizes)

    def ranked(self, start: int, stop: int) -> np.ndarray:
        """Return the shards that come at ranks [start, stop) of the epoch, or as many of them as there are."""
        stop = min(stop, len(self))
        parts = [np.empty(0, np.int64)]
        while start < stop:
            number = int(np.searchsorted(self._rank_ends, start, side="right"))
            shards, _ = self._bucket(number)
            first = int(self._rank_ends[number]) - len(shards)
            parts.append(shards[start - first : stop - first])
            start += len(parts[-1])
        return np.concatenate(parts)

    def rank_at(self, offset: int) -> int:
        """Return the rank of the shard that has the sample position ``offset`` within the epoch."""
        number = int(np.searchsorted(self._sample_ends, offset, side="right"))
        shards, sample_ends = self._bucket(number)
        first = int(self._rank_ends[number]) - len(shards)
        return first + int(np.searchsorted(sample_ends, offset, side="right"))

    def samples_before(self, rank: int) -> int:
        """Return the position within the epoch at which the shard of a rank, below the number of shards, begins."""
        number = int(np.searchsorted(self._rank_ends, rank, side="right"))
        shards, sample_ends = self._bucket(number)
        at = rank - int(self._rank_ends[number]) + len(shards)
        return int(sample_ends[at]) - int(self._sizes[shards[at]])

    def _sort_bucket(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shards of a bucket in order, and the position within the epoch at which each ends."""
        unsorted = np.flatnonzero((self._keys >> self._shift) == np.uint64(number))
        shards = unsorted[_ranked(self._keys[unsorted])]
        sizes = self._sizes[shards]
        return shards, np.cumsum(sizes) + (int(self._sample_ends[number]) - int(sizes.sum()))


class SampleOrder:
    """The endless stream of sample numbers; it keeps no cursor, so any position can be read at any time.

    Args:
        shard_sizes: number of samples of each shard; samples are numbered through the shards in this order.
        seed: seed of the shuffle.
        window_shards: number of shards that are mixed together; more shards mix better and keep more files open.

    Raises:
        ValueError: there are no samples, a size is negative, or the window is empty.
    """

    def __init__(self, shard_sizes: Sequence[int] | np.ndarray, *, seed: int, window_shards: int) -> None:
        sizes = np.asarray(shard_sizes, dtype=np.int64)
        if sizes.sum() < 1 or sizes.min() < 0:
            raise ValueError(f"shard sizes {list(shard_sizes)[:8]} hold no sample to order; give at least one sample")
        if window_shards < 1:
            raise ValueError(f"a window of {window_shards} shards holds no sample; use at least 1")
        self.num_samples = int(sizes.sum())
        self._sizes = sizes
        self._first = np.concatenate(([0], np.cumsum(sizes)))
        self._seed, self._window_shards = seed, window_shards
        # Two each, because a batch may reach into the next window and the next epoch.
        self._shards = lru_cache(maxsize=2)(self._shuffle_shards)
        self._window = lru_cache(maxsize=2)(self._shuffle_window)
        self._last = 0, 0, np.empty(0, np.int64)  # epoch, position within it and samples of the window read last

    def __reduce__(self) -> tuple:
        """Pickle without the caches, and the sizes in few bytes: there may be millions."""
        sizes = self._sizes.astype(np.min_scalar_type(self._sizes.max()))
        return _rebuild, (sizes, self._seed, self._window_shards)

    def at(self, start: int, stop: int) -> np.ndarray:
        """Return the sample numbers at positions [start, stop) of the stream.

        Returns:
            (stop - start,) int64.

        Raises:
            ValueError: the positions are negative or out of order.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"positions [{start}, {stop}) are not a valid range; use 0 <= start <= stop")
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.num_samples)
            taken = self._from_epoch(epoch, offset, min(stop - start, self.num_samples - offset))
            parts.append(taken)
            start += len(taken)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def upcoming_shards(self, position: int) -> list[int]:
        """Return the shards of the window at a position, followed by those of the next window."""
        epoch, offset = divmod(position, self.num_samples)
        shards = self._shards(epoch)
        first = self._window_at(shards, offset) * self._window_shards
        ahead = shards.ranked(first, first + 2 * self._window_shards).tolist()
        if first + self._window_shards >= len(shards):
            ahead += self._shards(epoch + 1).ranked(0, self._window_shards).tolist()
        return ahead

    def _from_epoch(self, epoch: int, offset: int, count: int) -> np.ndarray:
        """Return up to ``count`` sample numbers from one window, starting at ``offset`` within the epoch."""
        last_epoch, begin, samples = self._last
        if epoch != last_epoch or not begin <= offset < begin + len(samples):
            shards = self._shards(epoch)
            window = self._window_at(shards, offset)
            begin, samples = shards.samples_before(window * self._window_shards), self._window(epoch, window)
            self._last = epoch, begin, samples
        return samples[offset - begin : offset - begin + count]

    def _window_at(self, shards: _ShuffledShards, offset: int) -> int:
        return shards.rank_at(offset) // self._window_shards

    def _shuffle_shards(self, epoch: int) -> _ShuffledShards:
        """Return the shuffled shards of an epoch."""
        return _ShuffledShards(self._sizes, seed=self._seed, epoch=epoch)

    def _shuffle_window(self, epoch: int, window: int) -> np.ndarray:
        """Return the shuffled samples of one window of an epoch."""
        shards = self._shards(epoch).ranked(window * self._window_shards, (window + 1) * self._window_shards)
        samples = np.concatenate([np.arange(int(self._first[shard]), int(self._first[shard + 1])) for shard in shards])
        return shuffled(samples, seed=self._seed, epoch=epoch, domain=_SAMPLE_DOMAIN)


def _rebuild(shard_sizes: np.ndarray, seed: int, window_shards: int) -> SampleOrder:
    return SampleOrder(shard_sizes, seed=seed, window_shards=window_shards)


def rank_share(start: int, stop: int, rank: int, world_size: int) -> range:
    """Return one rank's positions in a batch: contiguous, with the remainder spread over the lowest ranks.

    Raises:
        ValueError: the batch has fewer positions than there are ranks, or the rank does not exist.
    """
    count = stop - start
    if count < world_size:
        raise ValueError(
            f"a batch of {count} samples is too small for {world_size} workers, which need 1 each; "
            "use a larger batch or fewer workers"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} does not exist among {world_size} workers; use 0 to {world_size - 1}")
    share, remainder = divmod(count, world_size)
    first = start + rank * share + min(rank, remainder)
    return range(first, first + share + (rank < remainder))
