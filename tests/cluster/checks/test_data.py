"""A set's shards are checked before a job, and not once more where that was done."""

import shutil

import pytest

from cluster.checks.data import check_data, check_home
from cluster.config import TrainRun
from cluster.data.shard_set import ShardSet


@pytest.fixture
def altered(drawn_shards, tmp_path):
    """Return a shard set of which one byte is another."""
    folder = shutil.copytree(drawn_shards, tmp_path / "shards")
    shard = folder / "val-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    return folder


def test_an_altered_shard_of_either_split_is_refused(altered):
    with pytest.raises(ValueError, match=r"1 of 1 shards differ from the manifest, first val-000000\.tar"):
        check_data(TrainRun(shards=altered))


def test_shards_that_were_found_whole_are_not_looked_at_again(altered):
    shard_set = ShardSet(altered)
    assert check_data(TrainRun(shards=altered), shard_set) is shard_set


def test_what_else_a_run_needs_is_checked_of_a_verified_set_too(drawn_shards):
    run = TrainRun(shards=drawn_shards, validation_split="test")
    with pytest.raises(ValueError, match="the shard set has no split test; it has train, val"):
        check_data(run, ShardSet(drawn_shards))


def test_a_home_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ValueError, match=r"home folder .*file/home cannot be made on .* \(Not a directory\); use a --home"
    ):
        check_home(tmp_path / "file" / "home")
