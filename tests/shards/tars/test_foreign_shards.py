"""Shards written by other programs can be read, and damage in them is reported."""

import pickle
import tarfile

import pytest

from shards.reader import DamagedSampleError, Sample, ShardReader
from tests.support.case_table import each_case
from tests.support.pictures import encoded, noise
from tests.support.raw_tars import description, record_of, write_tar

JPEG = encoded(noise(8, 8))
CONVERT_AGAIN = "; run captioning convert again$"


@pytest.fixture
def tar_of(tmp_path):
    """Return a function that writes a shard from names and contents, as another program would."""

    def write(members, num_samples, *, form=tarfile.PAX_FORMAT):
        path = tmp_path / "other-000000.tar"
        write_tar(path, members, form=form)
        return ShardReader(tmp_path, [record_of(path, num_samples)])

    return write


@each_case("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@each_case(
    ("stem", "suffix"),
    [
        ("000000000001", "jpg"),
        ("000000000001", "jpeg"),
        ("IMG_1", "JPG"),
        ("./dogs/1", "jpg"),
        ("a.b/c/1", "jpeg"),
        ("dogs/" * 20 + "1", "jpg"),
        ("ü" * 20, "jpg"),
    ],
)
def test_shards_of_other_programs_are_read(tar_of, stem, suffix, form):
    reader = tar_of([(f"{stem}.{suffix}", JPEG), (f"{stem}.json", description(1))], 1, form=form)
    assert reader.read(0) == Sample(stem, "other-000000.tar", 1, JPEG, ("Caption 1.",))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_longer_than_a_header_are_read(tar_of, form):
    stem = "n" * 200
    reader = tar_of([(f"{stem}.jpg", JPEG), (f"{stem}.json", description(1))], 1, form=form)
    assert (reader.read(0).key, reader.read(0).jpeg) == (stem, JPEG)


def test_the_json_may_come_first_and_more_parts_may_follow(tar_of):
    reader = tar_of([("1.json", description(1)), ("1.jpg", JPEG), ("1.seg.png", b"?"), ("1.txt", b"Caption")], 1)
    assert reader.read(0).jpeg == JPEG


@each_case(
    "stranger",
    [
        ("README", b"text"),
        ("dogs", None),
        ("dogs.d", None),
        ("._1.jpg", b"of a Mac"),
        ("dogs/._1.jpg", b"of a Mac"),
        (".hidden", b""),
    ],
)
def test_what_is_no_part_of_a_sample_does_not_count(tar_of, stranger):
    reader = tar_of([stranger, ("1.jpg", JPEG), ("1.json", description(1))], 1)
    assert (len(reader), reader.read(0).key) == (1, "1")


def test_one_key_in_two_folders_is_two_samples(tar_of):
    parts = [
        (f"{folder}/1.{suffix}", content)
        for folder in "ab"
        for suffix, content in (("jpg", JPEG), ("json", description(1)))
    ]
    assert [tar_of(parts, 2).read(number).key for number in range(2)] == ["a/1", "b/1"]


@each_case(
    ("members", "fault"),
    [
        ([("1.jpg", JPEG)], "it has no json"),
        ([("1.json", description(1))], "it has no jpg or jpeg"),
        ([("1.png", JPEG), ("1.json", description(1))], "it has no jpg or jpeg"),
        ([("1.jpg", JPEG), ("1.json", b"")], "Expecting value: .*"),
        ([("1.jpg", JPEG), ("1.json", b"\xff\xff")], ".*can't decode.*"),
        ([("1.jpg", JPEG), ("1.json", b"[" * 100_000)], ".*recursion.*"),
        ([("1.jpg", JPEG), ("1.json", b"[]")], "its json is not an object"),
        ([("1.jpg", JPEG), ("1.json", description(1.5))], "its json has no image_id, a number or a text"),
        ([("1.jpg", JPEG), ("1.json", b'{"captions": ["A."]}')], "its json has no image_id, a number or a text"),
        ([("1.jpg", JPEG), ("1.json", b'{"image_id": 1}')], "its json has no captions, a list of strings"),
        (
            [("1.jpg", JPEG), ("1.json", description(1, captions="A dog."))],
            "its json has no captions, a list of strings",
        ),
        ([("1.jpg", JPEG), ("1.json", description(1, captions=[]))], "its json has no captions, a list of strings"),
        ([("1.jpg", JPEG), ("1.json", description(1, captions=[3]))], "its json has no captions, a list of strings"),
    ],
)
def test_a_damaged_sample_is_named(tar_of, members, fault):
    with pytest.raises(
        ValueError, match=rf"sample 1 of .*other-000000.tar is damaged \({fault}\){CONVERT_AGAIN}"
    ) as error:
        tar_of(members, 1).read(0)
    assert len(str(error.value).splitlines()) == 1


def test_damage_of_a_sample_tells_key_shard_and_reason_apart(tar_of, tmp_path):
    with pytest.raises(DamagedSampleError, match="is damaged") as error:
        tar_of([("1.jpg", JPEG), ("1.json", b"[]")], 1).read(0)
    copy = pickle.loads(pickle.dumps(error.value))  # as it comes from another process
    assert (copy.key, copy.shard, copy.reason) == ("1", "other-000000.tar", "its json is not an object")
