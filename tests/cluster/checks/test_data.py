"""Checks of a run's data; for features see ``data/test_extraction_plans``, for URLs ``data/test_remote_loading``."""

import os
import shutil
from dataclasses import replace

import pytest

from captioning.config import ModelConfig
from captioning.data.vocabulary import SPECIAL_WORDS, Vocabulary
from cluster.checks.data import check_data, check_home, fetch_weights_here
from cluster.config import ClusterConfig, TrainRun
from cluster.data.shard_set import ShardSet


@pytest.fixture
def run(drawn_shards):
    return TrainRun(shards=drawn_shards, model=ModelConfig(backbone="squeezenet1_1", weights="none"))


@pytest.fixture
def altered(drawn_shards, tmp_path):
    """Return a copy of a shard set with one byte changed."""
    folder = shutil.copytree(drawn_shards, tmp_path / "shards")
    shard = folder / "val-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    return folder


def test_data_that_are_whole_are_returned(run, drawn_shards):
    assert check_data(run).folder == drawn_shards


def test_a_run_that_validates_on_what_it_trains_on_is_told(run, caplog):
    check_data(replace(run, train_split="val"))
    assert "split val is both trained on and validated on, so no score tells anything of other images" in caplog.text


def test_a_vocabulary_without_words_is_refused(run, drawn_shards):
    shard_set = ShardSet(drawn_shards)
    shard_set.vocabulary = Vocabulary(SPECIAL_WORDS)
    with pytest.raises(
        ValueError, match="has a vocabulary without words, so a model could only write empty captions; run"
    ):
        check_data(run, shard_set)


def test_a_damaged_shard_of_either_split_is_refused(run, altered):
    with pytest.raises(ValueError, match=r"1 of 1 shards differ from the manifest, first val-000000\.tar"):
        check_data(replace(run, shards=altered))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_split": "test"}, "has no split test; it has train, val"),
        ({"model": ModelConfig(backbone="resnet0")}, "resnet0"),
        ({"model": ModelConfig(weights="/none.pth")}, r"/none\.pth"),
    ],
)
def test_what_a_run_names_must_be_there(run, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_data(replace(run, **changes))


def test_shards_that_were_found_whole_are_not_looked_at_again(altered):
    shard_set = ShardSet(altered)
    assert check_data(TrainRun(shards=altered), shard_set) is shard_set


def test_what_else_a_run_needs_is_checked_of_a_verified_set_too(drawn_shards):
    run = TrainRun(shards=drawn_shards, validation_split="test")
    with pytest.raises(ValueError, match="the shard set has no split test; it has train, val"):
        check_data(run, ShardSet(drawn_shards))


def test_a_home_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ValueError, match=r"home folder .*/file/home cannot be created on .* \(Not a directory\); set --home"
    ):
        check_home(tmp_path / "file" / "home")


def test_a_home_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(
        ValueError, match=rf"home folder {tmp_path} cannot be written on .* by this user; set --home to"
    ):
        check_home(tmp_path)


@pytest.mark.parametrize(
    ("weights", "address", "fetched"),
    [("DEFAULT", None, ["resnet18"]), ("DEFAULT", "10.0.0.1:6379", []), ("none", None, [])],
)
def test_weights_are_fetched_once_for_the_workers_of_this_machine(monkeypatch, weights, address, fetched):
    asked = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("cluster.checks.data.fetch_weights", asked.append)
    fetch_weights_here("resnet18", weights, ClusterConfig(address=address))
    assert asked == fetched
