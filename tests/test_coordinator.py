import json
import uuid

import pytest

from cluster.config import StorageConfig, TrackingConfig
from cluster.coordinator import Coordinator, hold_run
from cluster.journal import Journal
from cluster.runs import VALIDATION_LOSS, RunRecord, load_record
from cluster.tracking import connect, create_run, experiment_id, tracking_uri


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return StorageConfig(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def client(storage):
    return connect(TrackingConfig(), storage)


@pytest.fixture
def folder(tmp_path, client, storage):
    """Return the folder of a run that has just started."""
    experiment = experiment_id(client, TrackingConfig(), storage)
    run_id = create_run(
        client, experiment, key=uuid.uuid4().hex, name="r", parameters={}, tags={}, dataset=("s", "s", "d")
    )
    RunRecord(name="r", identity={}, mlflow_run_id=run_id, num_starts=1).save(tmp_path)
    return tmp_path


@pytest.fixture
def coordinator(folder, storage):
    made = Coordinator(folder, tracking_uri(TrackingConfig(), storage), keep_best=1, keep_last=1)
    yield made
    made.finish("FAILED")


def write_checkpoint(folder, step, attempt):
    (folder / "checkpoints" / f"step-{step:08d}-attempt-{attempt}").mkdir(parents=True)


def metrics(loss):
    return {VALIDATION_LOSS: loss}


def tracked_steps(client, folder):
    run_id = load_record(folder).mlflow_run_id
    return [metric.step for metric in client.get_metric_history(run_id, "loss")]


def test_attempts_are_numbered_over_all_drivers(coordinator, folder):
    coordinator.begin_attempt()
    assert (coordinator.begin_attempt().number, load_record(folder).attempt) == (2, 2)


def test_an_attempt_resumes_from_the_latest_checkpoint_that_counts(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 5, metrics(1.0))
    assert coordinator.begin_attempt().checkpoint.step == 5


def test_a_replaced_attempt_commits_nothing(coordinator, folder):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    with pytest.raises(PermissionError, match="attempt 1 was replaced by 2; its checkpoint does not count"):
        coordinator.commit(old, 5, metrics(1.0))
    assert load_record(folder).checkpoints == ()


def test_a_replaced_attempt_journals_nothing(coordinator, folder):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    coordinator.add_row(old, 1, {"loss": 1.0})
    assert coordinator.progress().row is None


def test_the_journal_is_on_disk_before_a_checkpoint_counts(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    coordinator.add_row(attempt, 1, {"loss": 1.0})
    coordinator.commit(attempt, 1, metrics(1.0))
    assert Journal(folder / "journal").last_step == 1


def test_folders_of_checkpoints_that_no_longer_count_are_removed(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    for step, loss in ((1, 0.5), (2, 0.9), (3, 0.8)):
        write_checkpoint(folder, step, attempt)
        coordinator.commit(attempt, step, metrics(loss))
    assert sorted(path.name[:13] for path in (folder / "checkpoints").iterdir()) == ["step-00000001", "step-00000003"]


def test_what_a_crash_left_behind_is_removed_at_the_next_attempt(coordinator, folder):
    write_checkpoint(folder, 7, 1)
    coordinator.begin_attempt()
    assert list((folder / "checkpoints").iterdir()) == []


def test_a_finished_run_has_every_row_in_the_tracker(folder, storage, client):
    coordinator = Coordinator(folder, tracking_uri(TrackingConfig(), storage), keep_best=1, keep_last=1)
    attempt = coordinator.begin_attempt().number
    for step in range(1, 4):
        coordinator.add_row(attempt, step, {"loss": 1.0})
    assert coordinator.finish("FINISHED")
    status = client.get_run(load_record(folder).mlflow_run_id).info.status
    assert (tracked_steps(client, folder), status, load_record(folder).is_finished) == ([1, 2, 3], "FINISHED", True)


def test_steps_that_are_computed_again_are_tracked_once(folder, storage, client):
    for _ in range(2):
        coordinator = Coordinator(folder, tracking_uri(TrackingConfig(), storage), keep_best=1, keep_last=1)
        attempt = coordinator.begin_attempt().number
        for step in range(1, 4):
            coordinator.add_row(attempt, step, {"loss": 1.0})
        coordinator.finish("KILLED")
    assert tracked_steps(client, folder) == [1, 2, 3]


def test_a_tracker_that_is_down_loses_nothing_and_stops_nothing(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("cluster.coordinator._LAST_SHIPPING_SECONDS", 0.0)
    coordinator = Coordinator(folder, "http://127.0.0.1:9", keep_best=1, keep_last=1)
    attempt = coordinator.begin_attempt().number
    coordinator.add_row(attempt, 1, {"loss": 1.0})
    was_tracked = coordinator.finish("FINISHED")
    kept = [row.step for _, rows in Journal(folder / "journal").unshipped() for row in rows]
    assert (was_tracked, kept, load_record(folder).is_finished) == (False, [1], True)


def test_failures_are_told_to_people(coordinator):
    coordinator.begin_attempt()
    coordinator.add_failure(1, "ValueError: bad")
    assert coordinator.progress().events == ["attempt 1 failed on rank 1: ValueError: bad"]


def test_a_run_has_one_live_driver(coordinator, folder):
    with pytest.raises(BlockingIOError, match="has a live driver already; wait for it, or stop it"):
        hold_run(folder)


def test_a_run_without_a_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run\.json; the driver writes it first"):
        Coordinator(tmp_path, "sqlite://", keep_best=1, keep_last=1)


def test_a_record_on_disk_is_whole_json(coordinator, folder):
    coordinator.begin_attempt()
    assert json.loads((folder / "run.json").read_text())["attempt"] == 1
