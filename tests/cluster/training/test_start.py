"""Records written before the workers start, and the number of connections to the tracker."""

import shutil
from dataclasses import replace

import pytest

from cluster.config import TrackingConfig
from cluster.data.shard_set import ShardSet
from cluster.tracking.client import connect
from cluster.training import start
from cluster.training.start import start_record
from tests.support.http_server import answering
from tests.support.short_runs import short_run


@pytest.fixture(scope="module")
def run(drawn_shards, tmp_path_factory):
    return short_run(drawn_shards, tmp_path_factory.mktemp("home"), name="started")


@pytest.fixture(scope="module")
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


@pytest.fixture(scope="module")
def client(run):
    return connect(run.tracking, run.storage)


@pytest.fixture
def connections(monkeypatch, client):
    """Return the list of trackers that the code connects to."""
    made = []
    monkeypatch.setattr(start, "connect", lambda tracking, storage: (made.append(tracking), client)[1])
    return made


@pytest.fixture(scope="module")
def record(run, shard_set, client):
    """Return the record of the first start."""
    return start_record(run, shard_set, client)


def test_a_first_start_connects_once(run, shard_set, connections):
    start_record(replace(run, name="once"), shard_set)
    assert len(connections) == 1


def test_a_start_that_is_given_a_client_connects_to_nothing(run, shard_set, connections, client):
    start_record(replace(run, name="given"), shard_set, client)
    assert connections == []


def test_a_second_start_connects_once_and_goes_on_with_the_same_mlflow_run(run, shard_set, connections, record):
    again = start_record(run, shard_set)
    assert (len(connections), again.mlflow_run_id, again.num_starts) == (1, record.mlflow_run_id, 2)


def test_the_copy_of_a_runs_folder_is_not_taken_for_a_run_of_its_own(run, shard_set, record):
    copy = replace(run, name="copy")
    shutil.copytree(run.folder, copy.folder)
    with pytest.raises(ValueError, match=r"training/copy holds run started, whose folder was copied or renamed; give"):
        start_record(copy, shard_set)


def test_a_run_whose_tracker_is_down_starts_again(run, shard_set, record, caplog):
    down = replace(run, tracking=TrackingConfig(uri="http://127.0.0.1:9"))
    again = start_record(down, shard_set)
    assert again.mlflow_run_id == record.mlflow_run_id
    assert (
        "the tracker does not take this start, training continues: MLflow at http://127.0.0.1:9 does not answer"
        in caplog.text
    )


def test_a_run_whose_tracker_is_another_mlflows_starts_again(run, shard_set, record, caplog, tmp_path):
    (tmp_path / "other.db").write_bytes(b"this is no database" * 100)
    broken = replace(run, tracking=TrackingConfig(uri=f"sqlite:///{tmp_path}/other.db"))
    assert start_record(broken, shard_set).mlflow_run_id == record.mlflow_run_id
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("cluster.")]
    assert (told.startswith("the tracker does not take this start"), "is no SQLite database" in told) == (True, True)


def test_a_run_that_was_deleted_in_mlflow_is_refused_with_the_command_that_restores_it(run, shard_set, client):
    deleted = replace(run, name="deleted")
    run_id = start_record(deleted, shard_set, client).mlflow_run_id
    client.delete_run(run_id)
    with pytest.raises(ValueError, match=rf"of run deleted was deleted; restore it .* --run-id {run_id}, or choose"):
        start_record(deleted, shard_set, client)


def test_a_run_whose_tracker_has_become_another_server_starts_again(run, shard_set, record, caplog):
    with answering({}) as uri:
        again = start_record(replace(run, tracking=TrackingConfig(uri=uri)), shard_set)
    assert (again.mlflow_run_id, "is not MLflow (404 Not Found" in caplog.text) == (record.mlflow_run_id, True)


def test_a_new_run_whose_tracker_is_down_is_refused(run, shard_set):
    with pytest.raises(ConnectionError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        start_record(replace(run, name="new", tracking=TrackingConfig(uri="http://127.0.0.1:9")), shard_set)


def test_a_tracker_that_lacks_the_run_gets_a_new_one(run, shard_set, record, client):
    lost = replace(run, name="lost")
    lost.folder.mkdir(parents=True)
    replace(record, name="lost", key="another", mlflow_run_id="0" * 32).save(lost.folder)
    found = start_record(lost, shard_set, client).mlflow_run_id
    assert client.get_run(found).info.run_name == "lost"
