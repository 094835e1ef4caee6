"""Shards are a pure function of their plan, whatever interrupts the writing of them."""

import dataclasses
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import decoded, encoded, noise, write_coco

import shards.writer
from shards.annotations import CaptionedImage
from shards.coco import read_coco
from shards.files import sha256_of
from shards.images import ImageSpec, store_image
from shards.writer import ShardPlan, finished_record, plan_shards, remove_strangers, write_shard

SPEC = ImageSpec(shorter_side_px=12)


@pytest.fixture
def images(tmp_path):
    """Return seven pictures of 24 x 16 px with two captions each."""
    write_coco(tmp_path / "coco", num_images=7)
    return read_coco(tmp_path / "coco").splits["train"]


@pytest.fixture
def shard_set(tmp_path):
    return tmp_path / "shards"


def deal(images, *, samples_per_shard=3, seed=5, spec=SPEC, skip_bad=False):
    return plan_shards("train", images, spec=spec, samples_per_shard=samples_per_shard, seed=seed, skip_bad=skip_bad)


def ids(plan):
    return [image.image_id for image in plan.images]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unread(count, start=0):
    return [CaptionedImage(image_id=start + number, path=None, captions=("A.",)) for number in range(count)]


def break_image(images, place=0):
    images[place].path.write_bytes(images[place].path.read_bytes()[:-100])
    return images[place]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(count=st.integers(0, 60), size=st.integers(1, 70), seed=st.integers(-(2**70), 2**70), data=st.data())
def test_dealing_takes_every_image_exactly_once(count, size, seed, data):
    images = data.draw(st.permutations(unread(count)))
    plans = plan_shards("train", images, spec=SPEC, samples_per_shard=size, seed=seed)
    assert sorted(image_id for plan in plans for image_id in ids(plan)) == list(range(count))
    assert [len(plan.images) for plan in plans] == [min(size, count - start) for start in range(0, count, size)]
    assert plans == plan_shards("train", unread(count), spec=SPEC, samples_per_shard=size, seed=seed)


def test_dealing_mixes_and_follows_the_seed():
    hands = [ids(deal(unread(100), samples_per_shard=100, seed=seed)[0]) for seed in (1, 1, 2)]
    assert hands[0] == hands[1] != hands[2]
    assert list(range(100)) not in hands


def test_dealing_stays_as_it_was_first_done():
    # Recorded once: other numbers would make every shard set another one.
    assert [ids(plan) for plan in deal(unread(7))] == RECORDED


RECORDED = [[3, 1, 6], [2, 0, 4], [5]]


def test_shards_are_named_by_split_and_number():
    assert [plan.name for plan in deal(unread(5), samples_per_shard=2)] == [
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
    ]


def test_a_shard_of_no_samples_is_refused():
    with pytest.raises(ValueError, match="0 samples a shard are none; use at least 1"):
        deal(unread(5), samples_per_shard=0)


@pytest.mark.parametrize("split", ["../train", "a/b", "", ".hidden", "a b", "-x"])
def test_a_split_that_cannot_name_a_file_is_refused(split):
    with pytest.raises(ValueError, match=r"split '.*' cannot name a file; use letters, digits"):
        plan_shards(split, unread(1), spec=SPEC, samples_per_shard=1, seed=0)


def test_the_order_of_writing_does_not_matter(images, tmp_path):
    plans = deal(images)
    for folder, order in (("forward", plans), ("backward", plans[::-1])):
        for plan in order:
            write_shard(plan, tmp_path / folder)
    assert contents(tmp_path / "forward") == contents(tmp_path / "backward")


def test_the_place_of_the_source_does_not_matter(images, tmp_path):
    write_coco(tmp_path / "copy", num_images=7)
    copies = read_coco(tmp_path / "copy").splits["train"]
    assert [plan.digest() for plan in deal(images)] == [plan.digest() for plan in deal(copies)]


def test_tar_members_tell_neither_time_nor_person(images, shard_set):
    write_shard(deal(images)[0], shard_set)
    with tarfile.open(shard_set / "train-000000.tar", "r:") as tar:
        facts = {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode, one.isfile()) for one in tar}
    assert facts == {(0, 0, 0, "", "", 0o444, True)}


def test_members_are_a_jpg_and_a_json_of_each_image(images, shard_set):
    plan = deal(images)[0]
    write_shard(plan, shard_set)
    with tarfile.open(shard_set / plan.name, "r:") as tar:
        names = tar.getnames()
    assert names == [f"{image.key}.{suffix}" for image in plan.images for suffix in ("jpg", "json")]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its last file to the garbage collector
def test_stock_webdataset_reads_every_sample(images, shard_set):
    plans = deal(images)
    for plan in plans:
        write_shard(plan, shard_set)
    pattern = str(shard_set / "train-{000000..000002}.tar")
    samples = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("pil").to_tuple("__key__", "jpg", "json"))
    gc.collect()
    expected = [
        {
            "image_id": one.image_id,
            "captions": list(one.captions),
            "width": 18,
            "height": 12,
            "file_name": one.path.name,
        }
        for plan in plans
        for one in plan.images
    ]
    assert [description for _, _, description in samples] == expected
    assert [key for key, _, _ in samples] == [f"{one['image_id']:012d}" for one in expected]
    assert {(picture.size, picture.mode) for _, picture, _ in samples} == {((18, 12), "RGB")}


def test_the_stored_picture_is_what_store_image_makes(images, shard_set):
    plan = deal(images, samples_per_shard=1)[0]
    write_shard(plan, shard_set)
    with tarfile.open(shard_set / plan.name, "r:") as tar:
        jpeg = tar.extractfile(f"{plan.images[0].key}.jpg").read()
    assert jpeg == store_image(plan.images[0].path.read_bytes(), SPEC).jpeg
    assert decoded(jpeg).size == (18, 12)


def test_captions_keep_their_characters(images, shard_set):
    image = dataclasses.replace(images[0], captions=('Ein "Hündchen", 犬 🐕 \\',))
    write_shard(deal([image])[0], shard_set)
    with tarfile.open(shard_set / "train-000000.tar", "r:") as tar:
        content = tar.extractfile(f"{image.key}.json").read()
    assert json.loads(content)["captions"] == list(image.captions)
    assert "犬".encode() in content


def test_the_record_describes_the_file(images, shard_set):
    plan = deal(images)[0]
    record = write_shard(plan, shard_set)
    path = shard_set / plan.name
    assert (record.name, record.split, record.num_samples, record.set_aside) == (plan.name, "train", 3, ())
    assert (record.num_bytes, record.sha256) == (path.stat().st_size, sha256_of(path))
    assert finished_record(plan, shard_set) == record


def test_an_unwritten_shard_has_no_record(images, shard_set):
    assert finished_record(deal(images)[0], shard_set) is None


@pytest.fixture
def stopped_at_the_second_image(monkeypatch):
    calls = []

    def store_or_stop(content, spec):
        calls.append(content)
        if len(calls) == 2:
            raise KeyboardInterrupt("in the middle")
        return store_image(content, spec)

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
    remove_strangers(deal(images), shard_set)
    assert contents(shard_set) == {}


@pytest.mark.usefixtures("stopped_at_the_second_image")
def test_a_stopped_rewrite_leaves_the_finished_shard(images, shard_set, monkeypatch):
    plan = deal(images)[0]
    with monkeypatch.context() as unbroken:
        unbroken.setattr(shards.writer, "store_image", store_image)
        record = write_shard(plan, shard_set)
    with pytest.raises(KeyboardInterrupt, match="in the middle"):
        write_shard(plan, shard_set)
    assert finished_record(plan, shard_set) == record


def test_a_shard_without_its_record_does_not_count(images, shard_set, monkeypatch):
    plan = deal(images)[0]

    def stop(path, content):
        raise KeyboardInterrupt("before the record")

    with monkeypatch.context() as broken:
        broken.setattr(shards.writer, "replace_file", stop)
        with pytest.raises(KeyboardInterrupt, match="before the record"):
            write_shard(plan, shard_set)
    assert ((shard_set / plan.name).is_file(), finished_record(plan, shard_set)) == (True, None)


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
import shards.writer
store_image, calls = shards.writer.store_image, []
def store_or_die(content, spec):
    calls.append(content)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return store_image(content, spec)
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
    remove_strangers(plans, tmp_path / "killed")
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
    assert finished_record(plan, shard_set) is None


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
    assert finished_record(deal(images, **change)[0], shard_set) is None


def test_a_shard_of_other_captions_does_not_count(images, shard_set):
    write_shard(deal(images)[0], shard_set)
    changed = [dataclasses.replace(image, captions=("Something else.",)) for image in images]
    assert finished_record(deal(changed)[0], shard_set) is None


def test_a_shard_of_another_file_does_not_count(images, shard_set):
    plan = deal(images)[0]
    write_shard(plan, shard_set)
    plan.images[0].path.write_bytes(encoded(noise(99, 99)))
    assert finished_record(plan, shard_set) is None


def test_a_shard_of_another_codec_does_not_count(images, shard_set, monkeypatch):
    plan = deal(images)[0]
    write_shard(plan, shard_set)
    monkeypatch.setattr(shards.writer, "codec_versions", lambda: {"pillow": "0.1", "libjpeg": "0.2"})
    assert finished_record(plan, shard_set) is None


def test_a_plan_is_of_the_files_as_they_were_before_the_first_was_read(images, shard_set, monkeypatch):
    plan = deal(images)[0]
    before = plan.digest()

    def store_and_replace(content, spec):
        plan.images[0].path.write_bytes(b"longer than it was" * 999)
        return store_image(content, spec)

    with monkeypatch.context() as broken:
        broken.setattr(shards.writer, "store_image", store_and_replace)
        assert write_shard(plan, shard_set).plan_digest == before
    assert finished_record(plan, shard_set) is None


def test_a_bad_image_stops_the_shard_and_is_named(images, shard_set):
    bad = break_image(images)
    with pytest.raises(
        ValueError,
        match=rf"{bad.path.name} \(image 1\): it does not decode .*; fetch it again, or set it aside with --on-",
    ):
        write_shard(deal(images, samples_per_shard=7)[0], shard_set)
    assert contents(shard_set) == {}


def test_a_bad_image_is_set_aside_and_the_rest_is_kept(images, shard_set):
    bad = break_image(images, place=3)
    record = write_shard(deal(images, samples_per_shard=7, skip_bad=True)[0], shard_set)
    with tarfile.open(shard_set / record.name, "r:") as tar:
        assert (len(tar.getnames()), f"{bad.key}.jpg" in tar.getnames()) == (12, False)
    assert record.num_samples == 6
    assert [(one.key, one.reason.split(":")[0]) for one in record.set_aside] == [(bad.key, bad.path.name)]


def test_what_is_set_aside_comes_back_from_the_record(images, shard_set):
    break_image(images)
    (plan,) = deal(images, samples_per_shard=7, skip_bad=True)
    record = write_shard(plan, shard_set)
    assert finished_record(plan, shard_set) == record


def test_a_shard_of_bad_images_alone_is_empty(images, shard_set):
    break_image(images)
    record = write_shard(deal(images[:1], skip_bad=True)[0], shard_set)
    with tarfile.open(shard_set / record.name, "r:") as tar:
        assert (record.num_samples, tar.getnames()) == (0, [])


def test_sound_shards_count_when_bad_images_are_skipped_after_all(images, shard_set):
    record = write_shard(deal(images)[0], shard_set)
    assert finished_record(deal(images, skip_bad=True)[0], shard_set) == record


def test_a_shard_that_lacks_a_bad_image_does_not_count_when_none_is_skipped(images, shard_set):
    break_image(images)
    write_shard(deal(images, samples_per_shard=7, skip_bad=True)[0], shard_set)
    assert finished_record(deal(images, samples_per_shard=7)[0], shard_set) is None


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_vanished_image_is_no_bad_image(images, shard_set, skip_bad):
    images[0].path.unlink()
    with pytest.raises(
        ValueError, match=r"000000000001.jpg \(image 1\) cannot be read \(No such file or directory\); mend"
    ):
        write_shard(deal(images, samples_per_shard=7, skip_bad=skip_bad)[0], shard_set)


def test_a_bad_moment_of_the_storage_sets_nothing_aside(images, shard_set, monkeypatch):
    (plan,) = deal(images, samples_per_shard=7, skip_bad=True)

    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(type(images[0].path), "read_bytes", fail)
    with pytest.raises(
        ValueError, match=r"\(image \d\) cannot be read \(Input/output error\); mend the source, then run"
    ):
        write_shard(plan, shard_set)


def test_strangers_of_an_earlier_plan_are_removed(images, shard_set):
    for plan in deal(images, samples_per_shard=1):
        write_shard(plan, shard_set)
    (shard_set / "records" / "train-000006.tar.json").unlink()  # as if killed before the record
    (shard_set / "records" / ".train-000002.tar.json.12345678.tmp").touch()
    plans = deal(images, samples_per_shard=4)
    remove_strangers(plans, shard_set)
    assert sorted(contents(shard_set)) == [
        "records/train-000000.tar.json",
        "records/train-000001.tar.json",
        "train-000000.tar",
        "train-000001.tar",
    ]


def test_finished_shards_survive_the_removal_of_strangers(images, shard_set):
    plans = deal(images)
    records = [write_shard(plan, shard_set) for plan in plans]
    remove_strangers(plans, shard_set)
    assert [finished_record(plan, shard_set) for plan in plans] == records


@pytest.mark.parametrize("name", ["archive.tar", "notes.txt", "manifest.json", "vocabulary.txt", "train-1.tar"])
def test_files_of_other_people_are_left_alone(images, shard_set, name):
    write_shard(deal(images)[0], shard_set)
    (shard_set / name).touch()
    remove_strangers(deal(images), shard_set)
    assert (shard_set / name).is_file()


def test_a_folder_that_is_no_shard_set_is_left_alone(images, tmp_path):
    (tmp_path / "other-000009.tar").touch()
    remove_strangers(deal(images), tmp_path)
    assert (tmp_path / "other-000009.tar").is_file()


def test_a_changed_plan_writes_over_what_is_there(images, tmp_path):
    for plan in deal(images, seed=1):
        write_shard(plan, tmp_path / "changed")
    for plan in deal(images, seed=2):
        write_shard(plan, tmp_path / "changed")
        write_shard(plan, tmp_path / "fresh")
    assert contents(tmp_path / "changed") == contents(tmp_path / "fresh")


def test_a_plan_tells_what_a_shard_will_hold(images):
    plan = deal(images, samples_per_shard=7)[0]
    assert plan == ShardPlan(name="train-000000.tar", split="train", images=plan.images, spec=SPEC)
