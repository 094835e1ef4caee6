"""Requests for training runs, made from their configurations."""

import json
from dataclasses import replace

import pytest

from cluster.config import StorageConfig, TrainRun
from cluster.settings import as_plain, flattened
from cluster.submission.training import CONFIG_NAME, training_request
from jobs.cli import find_job
from jobs.console.parsing import parse_as_written
from tests.support.repository import ROOT


@pytest.fixture
def request_of(tmp_path, monkeypatch):
    """Return a function that makes the request for a run, from a folder without code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAPTIONING_HOME", raising=False)
    return lambda run, **options: training_request(run, tmp_path / CONFIG_NAME, working_dir=ROOT, **options)


@pytest.fixture
def run(tmp_path):
    return TrainRun(name="big", shards="s3://bucket/shards", storage=StorageConfig(home=tmp_path))


def test_the_configuration_travels_as_a_file_that_the_job_reads(request_of, run, tmp_path):
    request = request_of(run)
    assert (request.name, request.command) == ("big", f"train --config {CONFIG_NAME}")
    assert dict(request.archive.files)[CONFIG_NAME] == tmp_path / CONFIG_NAME
    parsed = parse_as_written(find_job("train"), request.command.split()[1:])
    assert parsed.settings == run


def test_a_job_that_takes_over_is_told_so_on_its_command_line(request_of, run):
    taking = replace(run, storage=replace(run.storage, checkpoints="s3://bucket/runs", take_over=True))
    request = request_of(taking)
    assert request.command == f"train --config {CONFIG_NAME} --take-over"
    assert parse_as_written(find_job("train"), request.command.split()[1:]).settings == taking


def test_it_records_the_settings_that_the_command_line_records(request_of, run):
    recorded = json.loads(request_of(run).metadata["captioning.settings"])
    assert recorded == {"job": "train"} | {key: str(value) for key, value in flattened(as_plain(run)).items()}


def test_a_path_that_the_nodes_do_not_have_is_refused(request_of):
    with pytest.raises(ValueError, match="home runs is relative to a folder of this machine"):
        request_of(TrainRun(name="big", storage=StorageConfig()))
