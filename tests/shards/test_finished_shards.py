"""A shard counts as finished only for its own plan, whatever interrupted the writing; stale shards are removed."""

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys

import pytest

import shards.writer
from shards.images import ImageSpec, store_image
from shards.records import finished_records, other_sources, remove_stale_shards
from shards.writer import write_shard
from tests.support.pictures import encoded, noise
from tests.support.shard_plans import contents, deal, seven_images


@pytest.fixture
def images(tmp_path):
    return seven_images(tmp_path / "coco")


@pytest.fixture
def shard_set(tmp_path):
    return tmp_path / "shards"


def test_an_unwritten_shard_has_no_record(images, shard_set):
    assert finished_records([deal(images)[0]], shard_set) == []


@pytest.fixture
def stopped_at_the_second_image(monkeypatch):
    calls = []

    def store_or_stop(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt("in the middle")
        return store_image(*arguments)

    monkeypatch.setattr(shards.writer, "store_image", store_or_stop)


@pytest.mark.usefixtures("stopped_at_the_second_image")
def test_a_stopped_writer_leaves_nothing(images, shard_set):
    with pytest.raises(KeyboardInterrupt, match="in the middle"):
        write_shard(deal(images)[0], shard_set)
    assert contents(shard_set) == {}


@pytest.mark.usefixtures("stopped_at_the_second_image")
def test_what_is_left_of_the_very_first_shard_is_removed(images, shard_set):
    with pytest.raises(KeyboardInterrupt, match="in the middle"):
        write_shard(deal(images)[0], shard_set)
    (shard_set / ".train-000000.tar.12345678.tmp").touch()  # as if killed
    remove_stale_shards(deal(images), shard_set)
    assert contents(shard_set) == {}


@pytest.mark.usefixtures("stopped_at_the_second_image")
def test_a_stopped_rewrite_leaves_the_finished_shard(images, shard_set, monkeypatch):
    plan = deal(images)[0]
    with monkeypatch.context() as unbroken:
        unbroken.setattr(shards.writer, "store_image", store_image)
        record = write_shard(plan, shard_set)
    with pytest.raises(KeyboardInterrupt, match="in the middle"):
        write_shard(plan, shard_set)
    assert finished_records([plan], shard_set) == [record]


def test_a_shard_without_its_record_does_not_count(images, shard_set, monkeypatch):
    plan = deal(images)[0]

    def stop(path, content):
        raise KeyboardInterrupt("before the record")

    with monkeypatch.context() as broken:
        broken.setattr(shards.writer, "replace_file", stop)
        with pytest.raises(KeyboardInterrupt, match="before the record"):
            write_shard(plan, shard_set)
    assert ((shard_set / plan.name).is_file(), finished_records([plan], shard_set)) == (True, [])


def test_writing_again_after_a_stop_gives_the_same_bytes(images, tmp_path, monkeypatch):
    plan = deal(images)[0]
    write_shard(plan, tmp_path / "whole")
    calls = iter([store_image, None])
    with monkeypatch.context() as broken:
        broken.setattr(shards.writer, "store_image", lambda *arguments: next(calls)(*arguments))
        with pytest.raises(TypeError, match="not callable"):
            write_shard(plan, tmp_path / "stopped")
    write_shard(plan, tmp_path / "stopped")
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")


KILLED_WRITER = """
import os, pathlib, pickle, signal, sys
sys.modules["torch"] = None  # WebDataset would load it, which takes a second, and does without
import shards.writer
store_image, calls = shards.writer.store_image, []
def store_or_die(*arguments):
    calls.append(arguments)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return store_image(*arguments)
shards.writer.store_image = store_or_die
for plan in pickle.load(sys.stdin.buffer):
    shards.writer.write_shard(plan, pathlib.Path(sys.argv[1]))
"""


@pytest.mark.faults
def test_another_process_writes_the_same_bytes_until_it_is_killed(images, tmp_path):
    plans = deal(images)
    elsewhere = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C", "USER": "nobody"}
    command = [sys.executable, "-c", KILLED_WRITER, tmp_path / "killed"]
    killed = subprocess.run(command, input=pickle.dumps(plans), env=elsewhere, check=False)
    left = list((tmp_path / "killed").glob(".train-000001.tar.*.tmp"))
    assert (killed.returncode, len(left)) == (-signal.SIGKILL, 1)
    remove_stale_shards(plans, tmp_path / "killed")
    write_shard(plans[0], tmp_path / "here")
    assert contents(tmp_path / "killed") == contents(tmp_path / "here")


@pytest.mark.parametrize(
    "damage",
    [
        lambda tar, record: tar.unlink(),
        lambda tar, record: tar.write_bytes(tar.read_bytes()[:-1]),
        lambda tar, record: tar.write_bytes(tar.read_bytes().replace(b"Caption", b"caption", 1)),
        lambda tar, record: record.unlink(),
        lambda tar, record: record.write_bytes(b""),
        lambda tar, record: record.write_text("{}"),
        lambda tar, record: record.write_bytes(record.read_bytes()[:-30]),
    ],
    ids=["no shard", "cut shard", "other byte", "no record", "empty record", "other record", "cut record"],
)
def test_a_damaged_shard_or_record_does_not_count(images, shard_set, damage):
    plan = deal(images)[0]
    write_shard(plan, shard_set)
    damage(shard_set / plan.name, shard_set / "records" / f"{plan.name}.json")
    assert finished_records([plan], shard_set) == []


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"samples_per_shard": 2},
        {"spec": ImageSpec(shorter_side_px=11)},
        {"spec": ImageSpec(shorter_side_px=12, quality=89)},
    ],
)
def test_a_shard_of_other_settings_does_not_count(images, shard_set, change):
    write_shard(deal(images)[0], shard_set)
    assert finished_records([deal(images, **change)[0]], shard_set) == []


def test_a_shard_of_other_captions_does_not_count(images, shard_set):
    write_shard(deal(images)[0], shard_set)
    changed = [dataclasses.replace(image, captions=("Something else.",)) for image in images]
    assert finished_records([deal(changed)[0]], shard_set) == []


def test_a_shard_of_another_file_does_not_count(images, shard_set):
    plan = deal(images)[0]
    write_shard(plan, shard_set)
    plan.images[0].path.write_bytes(encoded(noise(99, 99)))
    assert finished_records([plan], shard_set) == []


@pytest.fixture
def bitmaps(tmp_path):
    """Return images whose files keep their size, whatever they show."""
    images = seven_images(tmp_path / "coco")
    for number, image in enumerate(images):
        image.path.write_bytes(encoded(noise(32, 32, seed=number), "BMP"))
    return images


def test_a_shard_of_a_picture_that_kept_name_size_and_time_does_not_count(bitmaps, shard_set):
    plan, other = deal(bitmaps)[:2]
    for one in (plan, other):
        write_shard(one, shard_set)
    path = plan.images[0].path
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(encoded(noise(32, 32, seed=99), "BMP"))
    os.utime(path, ns=times)  # as tar and rsync do
    assert [record.name for record in finished_records([plan, other], shard_set)] == [other.name]
    assert other_sources([plan, other], shard_set) == [plan.name]


def test_a_shard_of_a_copy_of_the_pictures_counts(bitmaps, shard_set):
    plan = deal(bitmaps)[0]
    write_shard(plan, shard_set)
    for image in plan.images:
        content = image.path.read_bytes()
        image.path.unlink()
        image.path.write_bytes(content)
    assert len(finished_records([plan], shard_set)) == 1


def test_a_shard_of_an_earlier_release_counts_by_names_and_sizes(bitmaps, shard_set):
    plan = deal(bitmaps)[0]
    write_shard(plan, shard_set)
    path = shard_set / "records" / f"{plan.name}.json"
    content = json.loads(path.read_text())
    del content["source"]
    path.write_text(json.dumps(content))
    plan.images[0].path.write_bytes(encoded(noise(32, 32, seed=99), "BMP"))
    assert len(finished_records([plan], shard_set)) == 1


def test_a_shard_of_another_codec_does_not_count(images, shard_set, monkeypatch):
    plan = deal(images)[0]
    write_shard(plan, shard_set)
    monkeypatch.setattr(shards.writer, "codec_versions", lambda codec: {"pillow": "0.1", "libjpeg": "0.2"})
    assert finished_records([plan], shard_set) == []


def test_a_plan_is_of_the_files_as_they_were_before_the_first_was_read(images, shard_set, monkeypatch):
    plan = deal(images)[0]
    before = plan.digest()

    def store_and_replace(*arguments):
        plan.images[0].path.write_bytes(b"longer than it was" * 999)
        return store_image(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(shards.writer, "store_image", store_and_replace)
        assert write_shard(plan, shard_set).plan_digest == before
    assert finished_records([plan], shard_set) == []


def test_strangers_of_an_earlier_plan_are_removed(images, shard_set):
    for plan in deal(images, samples_per_shard=1):
        write_shard(plan, shard_set)
    (shard_set / "records" / "train-000006.tar.json").unlink()  # as if killed before the record
    (shard_set / "records" / ".train-000002.tar.json.12345678.tmp").touch()
    plans = deal(images, samples_per_shard=4)
    remove_stale_shards(plans, shard_set)
    assert sorted(contents(shard_set)) == [
        "records/train-000000.tar.json",
        "records/train-000001.tar.json",
        "train-000000.tar",
        "train-000001.tar",
    ]


def test_finished_shards_survive_the_removal_of_strangers(images, shard_set):
    plans = deal(images)
    records = [write_shard(plan, shard_set) for plan in plans]
    remove_stale_shards(plans, shard_set)
    assert finished_records(plans, shard_set) == records


@pytest.mark.parametrize("name", ["archive.tar", "notes.txt", "manifest.json", "vocabulary.txt", "train-1.tar"])
def test_files_of_other_people_are_left_alone(images, shard_set, name):
    write_shard(deal(images)[0], shard_set)
    (shard_set / name).touch()
    remove_stale_shards(deal(images), shard_set)
    assert (shard_set / name).is_file()


def test_a_folder_that_is_no_shard_set_is_left_alone(images, tmp_path):
    (tmp_path / "other-000009.tar").touch()
    remove_stale_shards(deal(images), tmp_path)
    assert (tmp_path / "other-000009.tar").is_file()


def test_a_changed_plan_writes_over_what_is_there(images, tmp_path):
    for plan in deal(images, seed=1):
        write_shard(plan, tmp_path / "changed")
    for plan in deal(images, seed=2):
        write_shard(plan, tmp_path / "changed")
        write_shard(plan, tmp_path / "fresh")
    assert contents(tmp_path / "changed") == contents(tmp_path / "fresh")
