"""Samples are read as they were written, and a damaged shard is reported."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import shards.reader
from shards.images import ImageSpec
from shards.order import SampleOrder
from shards.reader import Sample, ShardReader
from shards.sources.coco import read_coco
from shards.writer import plan_shards, write_shard
from tests.support.pictures import write_coco
from tests.support.raw_tars import description, record_of, write_tar
from tests.support.shard_tables import as_table

CONVERT_AGAIN = "; run captioning convert again$"


@pytest.fixture
def written(tmp_path):
    """Write seven images to shards of three, three and one; return their folder, records and images by shard."""
    write_coco(tmp_path / "coco", num_images=7)
    images = read_coco(tmp_path / "coco").splits["train"]
    plans = plan_shards("train", images, spec=ImageSpec(), samples_per_shard=3, seed=5)
    return tmp_path, [write_shard(plan, tmp_path) for plan in plans], plans


def test_every_number_gives_its_image_as_it_was_dealt(written):
    folder, records, plans = written
    reader = ShardReader(folder, records)
    expected = [
        Sample(image.key, plan.name, image.image_id, image.path.read_bytes(), image.captions)
        for plan in plans
        for image in plan.images
    ]
    assert [reader.read(number) for number in range(len(reader))] == expected


def test_samples_can_be_read_in_any_order(written):
    folder, records, _ = written
    reader = ShardReader(folder, records)
    forward = [reader.read(number).key for number in range(7)]
    assert [reader.read(number).key for number in range(6, -1, -1)] == forward[::-1]


def test_numbers_count_through_the_shards_that_were_given(written):
    folder, records, plans = written
    reader = ShardReader(folder, [records[2], records[0]])
    images = [*plans[2].images, *plans[0].images]
    assert (reader.shard_sizes.tolist(), len(reader)) == ([1, 3], 4)
    assert [reader.read(number).key for number in range(4)] == [image.key for image in images]


def test_shards_in_a_table_are_read_as_those_in_a_list(written, monkeypatch):
    folder, records, _ = written
    listed, tabled = ShardReader(folder, records), ShardReader(folder, as_table(records, folder, monkeypatch))
    assert (tabled.shard_sizes.tolist(), len(tabled)) == ([3, 3, 1], 7)
    for reader in (tabled, pickle.loads(pickle.dumps(tabled))):
        assert [reader.read(number) for number in range(7)] == [listed.read(number) for number in range(7)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(0, 4), max_size=8))
def test_numbers_skip_empty_shards(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("sizes")
    records = []
    for shard, size in enumerate(sizes):
        path = folder / f"{shard}.tar"
        parts = (
            part
            for place in range(size)
            for part in ((f"{place}.jpg", b"jpeg"), (f"{place}.json", description(10 * shard + place)))
        )
        write_tar(path, parts)
        records.append(record_of(path, size))
    reader = ShardReader(folder, records)
    expected = [10 * shard + place for shard, size in enumerate(sizes) for place in range(size)]
    assert [reader.read(number).image_id for number in range(len(reader))] == expected


@pytest.mark.parametrize("number", [-1, 7, 10**12])
def test_a_number_that_does_not_exist_is_refused(written, number):
    folder, records, _ = written
    with pytest.raises(IndexError, match=rf"sample {number} does not exist; there are 7"):
        ShardReader(folder, records).read(number)


def test_nothing_is_opened_before_it_is_read(tmp_path, written):
    _, records, _ = written
    assert len(ShardReader(tmp_path / "nowhere", records)) == 7


def test_few_shards_are_open_at_once(written, monkeypatch):
    folder, records, _ = written
    monkeypatch.setattr(shards.reader, "MOST_OPEN_SHARDS", 2)
    reader = ShardReader(folder, records)
    keys = [reader.read(number % 7).key for number in range(14)]
    assert (keys[:7], reader._shard.cache_info().currsize) == (keys[7:], 2)


def test_an_epoch_opens_each_shard_once_and_keeps_those_of_a_window(tmp_path):
    write_coco(tmp_path / "coco", num_images=7)
    images = read_coco(tmp_path / "coco").splits["train"]
    plans = plan_shards("train", images, spec=ImageSpec(), samples_per_shard=1, seed=5)
    reader = ShardReader(tmp_path, [write_shard(plan, tmp_path) for plan in plans], most_open=3)
    order = SampleOrder(reader.shard_sizes, seed=0, window_shards=3)
    for number in order.at(0, 7):
        reader.read(number)
    found = reader._shard.cache_info()
    assert (found.misses, found.currsize, found.maxsize) == (7, 3, 3)
    assert pickle.loads(pickle.dumps(reader))._shard.cache_info().maxsize == 3


def test_a_reader_travels_with_no_map(written):
    folder, records, _ = written
    reader = ShardReader(folder, records)
    expected = [reader.read(number) for number in range(7)]
    copy = pickle.loads(pickle.dumps(reader))
    assert copy._shard.cache_info().currsize == 0
    assert [copy.read(number) for number in range(7)] == expected


class Keys:
    """A map-style dataset of the keys of a reader's samples."""

    def __init__(self, reader):
        self.reader = reader

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, number):
        return self.reader.read(number).key


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_loader_processes_read_what_one_process_reads(written):
    folder, records, _ = written
    reader = ShardReader(folder, records)
    keys = [reader.read(number).key for number in range(7)]
    loader = DataLoader(Keys(reader), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert list(loader) == keys


def test_a_missing_shard_is_named(written):
    folder, records, _ = written
    (folder / records[1].name).unlink()
    reader = ShardReader(folder, records)
    assert reader.read(2).shard == records[0].name
    with pytest.raises(
        ValueError, match=rf"{records[1].name} cannot be read \(No such file or directory\){CONVERT_AGAIN}"
    ):
        reader.read(3)


@pytest.mark.parametrize("content", [b"", b"text" * 999, b"<html>"])
def test_a_file_that_is_no_tar_is_named(written, content):
    folder, records, _ = written
    (folder / records[0].name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{records[0].name} cannot be read \(.+\){CONVERT_AGAIN}"):
        ShardReader(folder, records).read(0)


def test_a_cut_of_any_length_is_noticed(written):
    folder, records, _ = written
    path = folder / records[0].name
    content = path.read_bytes()
    for length in range(0, len(content), 512):
        for cut in {length, max(length - 1, 0)}:
            path.write_bytes(content[:cut])
            with pytest.raises(ValueError, match=r"cannot be read|has \d+ bytes, but its record says \d+"):
                ShardReader(folder, records).read(0)


def test_another_number_of_samples_is_noticed(written):
    folder, records, _ = written
    reader = ShardReader(folder, [record_of(folder / records[0].name, 4)])
    with pytest.raises(ValueError, match=rf"{records[0].name} has 3 samples, but its record says 4{CONVERT_AGAIN}"):
        reader.read(0)


def test_a_damaged_header_loses_no_sample_without_a_word(written):
    folder, records, _ = written
    path = folder / records[0].name
    content = bytearray(path.read_bytes())
    at = content.rindex(b".json\0") + 148
    content[at : at + 8] = b"\xff" * 8  # the checksum of the last header
    path.write_bytes(content)
    reader = ShardReader(folder, records)
    with pytest.raises(ValueError, match=rf"is damaged \(it has no json\){CONVERT_AGAIN}"):
        reader.read(2)


def test_damage_of_a_shard_is_no_damage_of_a_sample(written):
    folder, records, _ = written
    (folder / records[0].name).write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read") as error:
        ShardReader(folder, records).read(0)
    assert type(error.value) is ValueError


def test_real_photographs_come_back(shared_data, tmp_path):
    images = read_coco(shared_data / "coco-mini", ["val"]).splits["val"][:6]
    plans = plan_shards("val", images, spec=ImageSpec(), samples_per_shard=4, seed=0)
    reader = ShardReader(tmp_path, [write_shard(plan, tmp_path) for plan in plans])
    samples = [reader.read(number) for number in range(6)]
    assert {sample.image_id: sample.captions for sample in samples} == {one.image_id: one.captions for one in images}
