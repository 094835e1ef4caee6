"""Records of shards as a table, whose file a test writes."""

import json

from shards.layout import TarSource
from shards.samples import SetAside
from shards.table.shard_table import ShardRecord, ShardTable
from shards.table.table_file import save_manifest, with_shards


def record_of_many(number, location=None):
    """Return one of many records, of which no two are alike; with a location it is that of a tar in place."""
    return ShardRecord(
        name=f"part-{number:06d}.tar",
        split=("val", "train", "test")[number % 3],
        num_samples=number * 7 % 5,
        num_bytes=2**40 + number,
        sha256=f"{number:064x}",
        plan_digest="" if number % 2 else "f" * 64,
        set_aside=tuple(SetAside(key=f"é{row}", reason="no caption") for row in range(number % 3)),
        tar=TarSource(location=location, captions="json.text", id_prefix="a/") if location else None,
    )


def in_tables(monkeypatch):
    """Let every set have a table, of batches of three rows."""
    monkeypatch.setattr("shards.table.table_file.MOST_LISTED", 0)
    monkeypatch.setattr("shards.table.table_file.ROWS_PER_BATCH", 3)
    monkeypatch.setattr("shards.table.shard_table.ROWS_PER_BATCH", 3)


def as_table(records, folder, monkeypatch):
    """Return the records as a table, which is written to a folder."""
    in_tables(monkeypatch)
    save_manifest(folder, "set.json", {"digest": "d"}, records, table_version=2)
    found = with_shards(folder, json.loads((folder / "set.json").read_bytes()))["shards"]
    assert isinstance(found, ShardTable)
    return found
