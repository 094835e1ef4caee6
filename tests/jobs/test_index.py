"""``captioning index`` from the command line, and what other commands say of tars."""

import json

import pytest

from tests.support.raw_tars import tar_samples, write_tar
from tests.support.small_disk import read_only, small_disk


@pytest.fixture
def tars(tmp_path):
    (tmp_path / "tars").mkdir()
    for number in range(2):
        members = [*tar_samples([f"{number}{key}" for key in "abc"]), ("x.cls", b"3")]
        write_tar(tmp_path / "tars" / f"{number}.tar", members)
    return tmp_path / "tars"


def test_tars_become_a_shard_set_that_other_commands_read(captioning, tars, tmp_path):
    arguments = ("index", f"train={tars}/0.tar", f"val={tars}/1.tar", tmp_path / "set", "--minimum-word-count", "1")
    code, printed, told = captioning(*arguments, "--json")
    assert (code, json.loads(printed)["splits"]) == (0, {"train": 3, "val": 3}), told
    assert "2 keys without an image (.cls) are no samples, and are left out" in told
    assert captioning("verify", tmp_path / "set", "--deep")[0] == 0
    code, printed, _ = captioning("inspect", tmp_path / "set", "--json")
    assert (code, json.loads(printed)["splits"]["val"]["num_samples"]) == (0, 3)
    assert captioning(*arguments)[0] == 0  # again: nothing to do


def test_a_damaged_tar_is_not_repaired(captioning, tars, tmp_path):
    captioning("index", tars, tmp_path / "set", "--minimum-word-count", "1")
    (tars / "0.tar").write_bytes(bytes(10240))
    code, _, told = captioning("verify", tmp_path / "set", "--repair", tars)
    assert (code, "uses tars of another program, which --repair does not write; restore the tars" in told) == (2, True)


def test_a_dry_run_writes_nothing(captioning, tars, tmp_path):
    code, printed, told = captioning("index", tars, tmp_path / "set", "--dry-run", "--json")
    assert (code, len(json.loads(printed)["train"]), (tmp_path / "set").exists()) == (0, 2, False)
    assert "--split-by 95:5 deals whole tars" in told


def test_a_folder_that_may_not_be_written_is_told_in_a_line(captioning, tars, tmp_path):
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", kib=64) as disk, read_only(disk):
        code, printed, told = captioning("index", tars, disk / "set", "--minimum-word-count", "1")
    assert (code in (1, 2), printed) == (True, "")
    assert f"{disk}/set" in told
    assert "is on a read-only file system" in told
    assert "Traceback" not in told


def test_a_set_is_needed_beside_the_tars(captioning, tars):
    code, _, told = captioning("index", tars)
    assert (code, "give the tars, then the shard set to write" in told) == (2, True)


@pytest.mark.parametrize(
    "arguments", [("convert", "{tars}", "{tars}-set"), ("inspect", "{tars}"), ("inspect", "{tars}/0.tar")]
)
def test_other_commands_say_what_tars_are_for(captioning, tars, arguments):
    code, _, told = captioning(*(one.format(tars=tars) for one in arguments))
    assert (code, "captioning index" in told) == (2, True), told
