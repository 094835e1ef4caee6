"""``captioning verify`` from the command line."""

import json
import shutil

import pytest


@pytest.fixture
def shard_set(drawn_shards, tmp_path):
    """A copy of a shard set, one of whose shards is damaged and one missing, and the bytes that it had."""
    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    before = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    content = bytearray(before["train-000001.tar"])
    content[5000] ^= 1
    (folder / "train-000001.tar").write_bytes(content)
    (folder / "val-000000.tar").unlink()
    return folder, before


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_a_sound_set_is_told_in_one_line(captioning, drawn_shards, deep):
    code, _, told = captioning("verify", drawn_shards, *deep)
    assert (code, told.splitlines()[-1]) == (0, f"{drawn_shards}: all 4 shards are as the manifest says")


def test_damaged_shards_are_named(captioning, shard_set):
    folder, _ = shard_set
    code, printed, told = captioning("verify", folder, "--json")
    faults = json.loads(printed)["faults"]
    assert (code, list(faults), faults["val-000000.tar"]) == (2, ["train-000001.tar", "val-000000.tar"], ["is missing"])
    assert f"error: 2 of 4 shards of {folder} are damaged; write them again with --repair SOURCE" in told


def test_damaged_shards_are_written_again_to_the_same_bytes(captioning, shard_set, drawn_shards):
    folder, before = shard_set
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    code, _, told = captioning("verify", folder, "--repair", drawn_shards.parent / "scenes")
    assert (code, "wrote 2 shards again: train-000001.tar, val-000000.tar" in told) == (0, True), told
    assert {path.name: path.read_bytes() for path in folder.glob("*.tar")} == before
    sound = ["train-000000.tar", "train-000002.tar"]
    assert [(folder / name).stat().st_mtime_ns for name in sound] == [times[name] for name in sound]


def test_another_source_is_refused(captioning, shard_set, tmp_path):
    folder, _ = shard_set
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dog.txt").write_text("A dog.")
    code, _, told = captioning("verify", folder, "--repair", tmp_path / "other")
    assert (code, "holds no captions" in told) == (2, True), told


def test_a_dry_run_reads_nothing(captioning, shard_set):
    code, printed, told = captioning("verify", shard_set[0], "--dry-run", "--json")
    assert (code, len(json.loads(printed)), "would read 4 shards" in told) == (0, 4, True)
