"""A table of shards is the same sequence of records as a tuple, and its columns are theirs."""

import pickle

import pytest

from shards.shard_files import ShardFiles
from shards.table.shard_table import are_in_place, records_of_split, sizes_of, splits_of
from tests.support.shard_tables import as_table, record_of_many

LOCATIONS = ("../tars/a.tar", "s3://bucket/b.tar", "file:///tars/c.tar", "/tars/x://d.tar", "https://host/e.tar?f=g")
RECORDS = tuple(record_of_many(number) for number in range(11))
IN_PLACE = tuple(record_of_many(number, location) for number, location in enumerate([*LOCATIONS, None]))


@pytest.mark.parametrize("records", [RECORDS, IN_PLACE])
def test_records_come_back_in_every_way_of_asking(tmp_path, monkeypatch, records):
    table = as_table(records, tmp_path, monkeypatch)
    assert tuple(table) == records
    assert [table[number] for number in range(-1, len(records) - 1)] == [records[-1], *records[:-1]]
    assert tuple(table[2:9:2]) == records[2:9:2]
    assert tuple(pickle.loads(pickle.dumps(table[1:]))) == records[1:]
    with pytest.raises(IndexError, match="out of bounds"):
        table[len(records)]


@pytest.mark.parametrize("records", [RECORDS, IN_PLACE])
def test_what_is_asked_of_all_shards_is_the_same_of_a_table(tmp_path, monkeypatch, records):
    table = as_table(records, tmp_path, monkeypatch)
    assert (are_in_place(table), splits_of(table)) == (are_in_place(records), splits_of(records))
    assert list(splits_of(table)) == list(splits_of(records))
    for split in ("train", "val", "test", "other"):
        found, expected = records_of_split(table, split), records_of_split(records, split)
        assert list(found) == expected
        assert sizes_of(found).tolist() == sizes_of(expected).tolist()
        assert splits_of(found) == splits_of(expected)


@pytest.mark.parametrize("records", [RECORDS, IN_PLACE])
def test_the_same_shards_of_a_table_are_at_urls(tmp_path, monkeypatch, records):
    files = ShardFiles(tmp_path)
    table = as_table(records, tmp_path, monkeypatch)
    assert files.remote_sizes(table).tolist() == files.remote_sizes(records).tolist()


def test_the_shards_of_a_set_at_a_url_are_there(tmp_path, monkeypatch):
    assert as_table(RECORDS, tmp_path, monkeypatch).are_at_urls(is_set_at_url=True).all()
