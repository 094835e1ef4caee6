"""Scans of tars: samples as a reader will find them, and what is no sample."""

import pytest

from shards.layout import TarSource
from shards.reader import ShardReader
from shards.samples import SetAside
from shards.table.shard_table import ShardRecord
from shards.tars.scan import scan_tar
from tests.support.pictures import encoded, noise
from tests.support.raw_tars import description, tar_samples, write_tar

PNG = encoded(noise(8, 8), "PNG")


@pytest.fixture
def scan(tmp_path):
    """Return a function that writes a tar, scans it and returns the scan, the captions and a reader."""

    def scan(members, captions="txt"):
        write_tar(tmp_path / "0.tar", members)
        texts = []
        found = scan_tar(
            str(tmp_path / "0.tar"), captions, has_word=lambda text: text != "...", add_captions=texts.extend
        )
        record = ShardRecord(
            name="train-000000.tar",
            split="train",
            num_samples=len(found.ids),
            num_bytes=found.num_bytes,
            sha256=found.sha256,
            plan_digest="",
            set_aside=found.set_aside,
            tar=TarSource(location="0.tar", captions=captions),
        )
        return found, texts, ShardReader(tmp_path, [record])

    return scan


def test_a_reader_finds_the_samples_of_the_scan(scan):
    members = [
        *tar_samples(
            ["a", "dogs/b", "c", "d"], captions=lambda name: {"c": "", "d": "..."}.get(name, f"A {name}\nTwo")
        ),
        ("e.txt", b"Nothing to see"),
        ("f.png", PNG),
        ("README", b""),
        ("g.webp", PNG),  # a suffix does not matter to the decoder
        ("h.txt", b"later"),
        ("g.txt", b"Not beside"),
    ]
    found, texts, reader = scan(members)
    assert found.ids == ("a", "dogs/b", "g")
    assert texts == ["A a", "Two", "A dogs/b", "Two", "Not beside"]
    assert found.set_aside == (
        SetAside(key="c", reason="its txt has no caption"),
        SetAside(key="d", reason="its txt has no caption with a word"),
    )
    assert found.others == {
        "keys without an image (.txt)": 2,
        "images without a .txt": 1,
        "files that belong to no key": 1,
    }
    samples = [reader.read(number) for number in range(len(reader))]
    assert [sample.image_id for sample in samples] == list(found.ids)
    assert [text for sample in samples for text in sample.captions] == texts
    assert (samples[2].jpeg, samples[2].shard) == (PNG, "0.tar")


def test_a_key_that_is_there_twice_is_set_aside(scan):
    found, _, reader = scan([*tar_samples(["a", "b"]), *tar_samples(["a"])])
    assert (found.ids, found.set_aside[0].reason) == (("b",), "its jpg is in the tar more than once")
    assert reader.read(0).image_id == "b"


def test_an_empty_image_is_set_aside(scan):
    found, _, reader = scan(
        [*tar_samples(["a"]), ("b.txt", b"A dog."), ("b.jpg", b""), ("c.jpg", b""), ("c.txt", b"A cat.")]
    )
    assert found.ids == ("a",)
    assert found.set_aside == tuple(SetAside(key=key, reason="its jpg is empty") for key in "bc")
    assert len(reader) == 1


def test_tars_of_convert_keep_their_ids(scan):
    found, _, reader = scan([("1.jpg", PNG), ("1.json", description(7))], "json")
    assert (found.ids, reader.read(0).image_id, reader.read(0).captions) == ((7,), 7, ("Caption 7.",))
