"""Records of a set's shards: one by one, or, of a set with many, as a table whose columns are used where they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, overload

import numpy as np
from pydantic import WrapValidator

from shards.layout import TarSource
from shards.samples import SetAside

ROWS_PER_BATCH = 2**16
DIGESTS = ("sha256", "plan_digest")
"""Fields of a record that are digests, which a table holds as 32 bytes; an empty one is null there."""
_NUM_REMEMBERED = 1024  # records, so that a training step makes none again for the shards of its window


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One finished shard."""

    name: str
    split: str
    num_samples: int
    num_bytes: int
    sha256: str
    plan_digest: str
    set_aside: tuple[SetAside, ...] = ()
    tar: TarSource | None = None
    """Where the shard is, if it is a tar of another program; None if it is beside the manifest."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they are stored: ``tar`` only where it is, as releases before it have none."""
        content = asdict(self)
        return content if self.tar else {name: value for name, value in content.items() if name != "tar"}


class ShardTable(Sequence[ShardRecord]):
    """Records of shards, sorted by name, each made when it is asked for.

    Pickled, it takes its columns along; a forked process shares them.

    Args:
        columns: ``pyarrow.Table`` of the records.
        rows: (N,) int64 numbers of the rows that are part of it; all if None.
        digest: sha256 that identifies the shards; None if it is not known.
    """

    def __init__(self, columns: Any, rows: np.ndarray | None = None, digest: str | None = None) -> None:  # noqa: ANN401  pyarrow has no types
        self._columns = columns
        self._rows = np.arange(columns.num_rows) if rows is None else rows
        self.digest = digest
        self._record = lru_cache(maxsize=_NUM_REMEMBERED)(self._make)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the records that were made."""
        return ShardTable, (self._columns, self._rows, self.digest)

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> ShardRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "ShardTable": ...
    def __getitem__(self, index: int | slice) -> "ShardRecord | ShardTable":
        """Return a record, or a part of the table."""
        if isinstance(index, slice):
            return ShardTable(self._columns, self._rows[index])
        return self._record(int(self._rows[index]))

    def __iter__(self) -> Iterator[ShardRecord]:
        """Yield the records, made many at a time."""
        for batch in self.batches():
            yield from map(_record_of, batch.to_pylist())

    def batches(self) -> Iterator[Any]:
        """Yield the rows as record batches of ``pyarrow``."""
        for start in range(0, len(self), ROWS_PER_BATCH):
            rows = self._rows[start : start + ROWS_PER_BATCH]
            first = int(rows.min())
            some = self._columns.slice(first, int(rows.max()) + 1 - first)  # take reads all that it is given
            yield from some.take(rows - first).combine_chunks().to_batches()

    @property
    def num_samples(self) -> np.ndarray:
        """Return the number of samples of each shard, (N,) int64."""
        return self._columns["num_samples"].to_numpy()[self._rows]

    @property
    def num_bytes(self) -> np.ndarray:
        """Return the size of each shard in bytes, (N,) int64."""
        return self._columns["num_bytes"].to_numpy()[self._rows]

    @property
    def is_in_place(self) -> bool:
        """Return whether a shard is a tar of another program."""
        tars = self._columns["tar"]
        return tars.null_count < len(tars)

    @property
    def splits(self) -> dict[str, int]:
        """Return the number of samples of each split."""
        names, codes = self._split_codes
        mine = codes[self._rows]
        samples = np.bincount(mine, weights=self.num_samples, minlength=len(names))
        present = np.bincount(mine, minlength=len(names)) > 0
        return {
            name: int(samples[code]) for code, name in sorted(enumerate(names), key=lambda one: one[1]) if present[code]
        }

    def of_split(self, split: str) -> "ShardTable":
        """Return the shards of a split; empty if there is no such split."""
        names, codes = self._split_codes
        code = names.index(split) if split in names else -1
        return ShardTable(self._columns, self._rows[codes[self._rows] == code])

    def are_at_urls(self, *, is_set_at_url: bool) -> np.ndarray:
        """Return which shards are at URLs, (N,) bool.

        Args:
            is_set_at_url: whether the folder of the set is, and so the shards beside the manifest.
        """
        from pyarrow import compute

        if not self.is_in_place:
            return np.full(len(self), is_set_at_url)
        functions: Any = compute  # made when it is imported
        locations = functions.struct_field(self._columns["tar"], "location")
        found = functions.match_substring_regex(locations, "^[^/]*://").fill_null(is_set_at_url)
        local = functions.match_substring_regex(locations, "^(file|local)://").fill_null(False)
        return (found.to_numpy() & ~local.to_numpy())[self._rows]

    @cached_property
    def _split_codes(self) -> tuple[list[str], np.ndarray]:
        """Return the names of the splits, and the index of each row's."""
        encoded = self._columns["split"].dictionary_encode().combine_chunks()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()

    def _make(self, row: int) -> ShardRecord:
        return _record_of(self._columns.slice(row, 1).to_pylist()[0])


def _known(value: Any, listed: Any) -> Sequence[ShardRecord]:  # noqa: ANN401  as pydantic calls it
    return value if isinstance(value, ShardTable) else tuple(listed(value))


ShardRecords = Annotated[Sequence[ShardRecord], WrapValidator(_known)]
"""Records of a set's shards: a tuple, or a table."""


def are_in_place(shards: Sequence[ShardRecord]) -> bool:
    """Return whether the shards are tars of another program, which are used where they are."""
    return shards.is_in_place if isinstance(shards, ShardTable) else any(shard.tar for shard in shards)


def splits_of(shards: Sequence[ShardRecord]) -> dict[str, int]:
    """Return the number of samples of each split."""
    if isinstance(shards, ShardTable):
        return shards.splits
    splits = sorted({shard.split for shard in shards})
    return {split: sum(shard.num_samples for shard in shards if shard.split == split) for split in splits}


def records_of_split(shards: Sequence[ShardRecord], split: str) -> Sequence[ShardRecord]:
    """Return the shards of a split, sorted by name; empty if there is no such split."""
    if isinstance(shards, ShardTable):
        return shards.of_split(split)
    return sorted((shard for shard in shards if shard.split == split), key=lambda shard: shard.name)


def sizes_of(shards: Sequence[ShardRecord]) -> np.ndarray:
    """Return the number of samples of each shard, (N,) int64."""
    if isinstance(shards, ShardTable):
        return shards.num_samples
    return np.array([shard.num_samples for shard in shards], np.int64)


def _record_of(row: dict[str, Any]) -> ShardRecord:
    fields: dict[str, Any] = {name: (row[name] or b"").hex() for name in DIGESTS}
    fields["set_aside"] = tuple(SetAside(**one) for one in row["set_aside"])
    fields["tar"] = row["tar"] and TarSource(**row["tar"])
    return ShardRecord(**(row | fields))
