from pathlib import Path

import pytest

from cluster.submission.paths import found_here, travelling_files
from jobs.cli import find_job
from jobs.console.parsing import parse_as_written


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that parses the command line of ``train`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: parse_as_written(find_job("train"), [*arguments, "--home", "/mnt/runs"])


def test_absolute_paths_and_urls_stay_on_the_cluster(train):
    assert list(travelling_files(train("--shards", "s3://bucket/shards", "--features", "/mnt/features"))) == []


def test_a_small_file_of_the_current_folder_travels(train, tmp_path):
    (tmp_path / "w.pth").touch()
    assert list(travelling_files(train("--model.weights", "w.pth", "--shards", "/mnt/shards"))) == [Path("w.pth")]


def test_all_relative_paths_are_named(train):
    with pytest.raises(ValueError, match=r"^shards s is relative .*\nweights w\.pth is relative "):
        list(travelling_files(train("--model.weights", "w.pth", "--shards", "s")))


def test_a_large_file_does_not_travel(train, tmp_path):
    (tmp_path / "w.pth").write_bytes(bytes(2**20 + 1))
    with pytest.raises(ValueError, match=r"weights w\.pth is relative to a folder of this machine; .* such as /mnt/w"):
        list(travelling_files(train("--model.weights", "w.pth", "--shards", "/mnt/shards")))


def test_a_path_that_a_message_names_is_found_if_it_is_here(train, tmp_path):
    invocation = train("--shards", f"{tmp_path}")
    messages = (f"{tmp_path}/manifest.json is not there", "another message", "/mnt/runs is full")
    assert [found_here(invocation, message) for message in messages] == [tmp_path, None, None]
