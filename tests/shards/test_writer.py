"""Shards are a pure function of their plan; a bad image is reported or set aside."""

import dataclasses
import gc
import json
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.images import store_image
from shards.reader import ShardReader
from shards.records import finished_records
from shards.samples import CaptionedImage, key_of
from shards.sources.coco import read_coco
from shards.storage.files import sha256_of
from shards.writer import ShardPlan, plan_shards, write_shard
from tests.support.case_table import each_case
from tests.support.pictures import decoded, write_coco
from tests.support.shard_plans import SPEC, contents, deal, seven_images


@pytest.fixture
def images(tmp_path):
    return seven_images(tmp_path / "coco")


@pytest.fixture
def shard_set(tmp_path):
    return tmp_path / "shards"


def ids(plan):
    return [image.image_id for image in plan.images]


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
    # Recorded once: other numbers would change the content of every shard set.
    assert [ids(plan) for plan in deal(unread(7))] == RECORDED


RECORDED = [[3, 1, 6], [2, 0, 4], [5]]


def test_shards_are_named_by_split_and_number():
    assert [plan.name for plan in deal(unread(5), samples_per_shard=2)] == [
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
    ]


def test_a_shard_of_no_samples_is_refused():
    with pytest.raises(ValueError, match="0 samples per shard is too few; use 1 or more"):
        deal(unread(5), samples_per_shard=0)


@each_case("split", ["../train", "a/b", "", ".hidden", "a b", "-x"])
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
    assert finished_records([plan], shard_set) == [record]


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
    assert finished_records([plan], shard_set) == [record]


def test_a_shard_of_bad_images_alone_is_empty(images, shard_set):
    break_image(images)
    record = write_shard(deal(images[:1], skip_bad=True)[0], shard_set)
    with tarfile.open(shard_set / record.name, "r:") as tar:
        assert (record.num_samples, tar.getnames()) == (0, [])


def test_sound_shards_count_when_bad_images_are_skipped_after_all(images, shard_set):
    record = write_shard(deal(images)[0], shard_set)
    assert finished_records([deal(images, skip_bad=True)[0]], shard_set) == [record]


def test_a_shard_that_lacks_a_bad_image_does_not_count_when_none_is_skipped(images, shard_set):
    break_image(images)
    write_shard(deal(images, samples_per_shard=7, skip_bad=True)[0], shard_set)
    assert finished_records([deal(images, samples_per_shard=7)[0]], shard_set) == []


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_vanished_image_is_no_bad_image(images, shard_set, skip_bad):
    images[0].path.unlink()
    with pytest.raises(
        ValueError, match=r"000000000001.jpg \(image 1\) cannot be read \(No such file or directory\); fix"
    ):
        write_shard(deal(images, samples_per_shard=7, skip_bad=skip_bad)[0], shard_set)


def test_a_bad_moment_of_the_storage_sets_nothing_aside(images, shard_set, monkeypatch):
    (plan,) = deal(images, samples_per_shard=7, skip_bad=True)

    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(type(images[0].path), "read_bytes", fail)
    with pytest.raises(
        ValueError, match=r"\(image \d\) cannot be read \(Input/output error\); fix the source, then run"
    ):
        write_shard(plan, shard_set)


def test_a_plan_tells_what_a_shard_will_hold(images):
    plan = deal(images, samples_per_shard=7)[0]
    assert plan == ShardPlan(name="train-000000.tar", split="train", images=plan.images, spec=SPEC)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its last file to the garbage collector
def test_texts_as_ids_and_further_columns_are_kept(images, shard_set):
    named = [
        dataclasses.replace(image, image_id=f"dogs/{number}.v1.jpg", columns={"breed": "Eurasier", "age": number})
        for number, image in enumerate(images)
    ]
    (plan,) = deal(named, samples_per_shard=7)
    record = write_shard(plan, shard_set)
    read = [ShardReader(shard_set, [record]).read(number) for number in range(record.num_samples)]
    assert sorted(sample.image_id for sample in read) == [image.image_id for image in named]
    (sample, *_) = webdataset.WebDataset(str(shard_set / plan.name), shardshuffle=False).decode()
    assert sample["json"]["columns"]["breed"] == "Eurasier"
    assert sample["__key__"] == key_of(sample["json"]["image_id"])
    without = dataclasses.replace(plan, images=tuple(dataclasses.replace(one, columns={}) for one in plan.images))
    assert without.digest() != plan.digest()
