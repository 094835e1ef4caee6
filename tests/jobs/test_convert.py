import json
from types import SimpleNamespace

import pytest

from cluster.config import ClusterConfig
from cluster.data.conversion import default_workers
from shards.synthetic.scenes import write_scenes
from tests.support.pictures import encoded, noise


def test_a_dry_conversion_writes_nothing(captioning, drawn_shards, tmp_path):
    _, _, told = captioning("convert", drawn_shards.parent / "scenes", tmp_path / "out", "--dry-run")
    assert ((tmp_path / "out").exists(), "train-000000.tar: 120 images" in told) == (False, True)


def test_a_dry_rebuild_lists_what_it_would_remove(captioning, drawn_shards):
    flags = ("--rebuild", "--dry-run", "--splits", "val", "--vocabulary-split", "val")
    before = sorted(drawn_shards.rglob("*"))
    code, _, told = captioning("convert", drawn_shards.parent / "scenes", drawn_shards, *flags)
    assert (code, f"would remove {drawn_shards}/train-000000.tar, which an earlier plan wrote" in told) == (0, True), (
        told
    )
    assert sorted(drawn_shards.rglob("*")) == before


def test_a_conversion_says_what_it_made(captioning, drawn_shards, tmp_path):
    _, printed, told = captioning("convert", drawn_shards.parent / "scenes", tmp_path / "out", "--json")
    assert json.loads(printed)["splits"] == {"train": 120, "val": 30}
    assert "starting Ray" not in told  # which would take longer than these images


def test_a_split_to_which_no_image_is_dealt_is_told(captioning, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(noise(24, 16, seed=number)))
        (tmp_path / f"{number}.txt").write_text("A dog runs.")
    flags = ("--split-by", "98:1:1", "--minimum-word-count", 1, "--dry-run")
    code, _, told = captioning("convert", tmp_path, tmp_path / "out", *flags)
    assert (code, "--split-by 98:1:1 deals no image to val and test; with so few, give a ratio" in told) == (0, True)


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("convert a b --samples-per-shard 0", "samples_per_shard 0 is out of range; use 1 to 10000000"),
        ("convert a b --minimum-word-count -1", "minimum_word_count -1 is out of range; use 1 to 1000000000"),
        ("convert a b --num-workers 99999999", "num_workers 99999999 is out of range; use 0 to 100000"),
        ("extract a b --batch-size 99999999", "batch_size 99999999 is too large; use at most 1000000"),
        ("demo --num-train 99999999999", "num_train 99999999999 is out of range; use 1 to 10000000"),
        ("promote m --num-resamples 1000000000", "num_resamples 1000000000 is too large; use at most 10000000"),
        ("serve models:/m/1 --port 99999", "port 99999 is out of range; use 1 to 65535"),
        ("serve models:/m/1 --num-workers 99999", "num_workers 99999 is out of range; use 1 to 1000"),
        ("ui --port 0", "port 0 is out of range; use 1 to 65535"),
        ("tune --search s --num-trials 99999999", "num_trials 99999999 is too large; use at most 1000000"),
        ("rollback m --to 99999999999999999999", "to 99999999999999999999 is not finite or too large"),
    ],
)
def test_numbers_beyond_any_use_are_refused_before_anything_is_done(captioning, command, mistake):
    code, printed, told = captioning(*command.split())
    assert (code, printed, mistake in told) == (2, "", True), told


@pytest.mark.parametrize(
    ("num_images", "address", "has_actors"), [(499, None, False), (500, None, True), (1, "10.0.0.1:6379", True)]
)
def test_ray_converts_where_it_is_faster(num_images, address, has_actors, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plan = SimpleNamespace(missing=[SimpleNamespace(images=range(num_images))])
    assert (default_workers(plan, ClusterConfig(address=address)) > 0) is has_actors


def test_an_image_that_does_not_decode_is_bad_input(tmp_path, captioning):
    write_scenes(tmp_path / "scenes", num_train=2, num_val=1, seed=1, size_px=32)
    sorted((tmp_path / "scenes" / "images").iterdir())[0].write_bytes(b"<svg/>")
    flags = ("--num-workers", "0", "--minimum-word-count", "1")
    code, _, told = captioning("convert", tmp_path / "scenes", tmp_path / "out", *flags)
    assert (code, "it begins with b'<svg/>' and cannot be read as JPEG" in told) == (2, True), told
