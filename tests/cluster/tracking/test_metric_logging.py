import logging
import threading
import uuid

import pytest
from mlflow.exceptions import MlflowException

from cluster.config import TrackingConfig
from cluster.runs.journal import Journal, Row, unshipped
from cluster.runs.record import RunRecord
from cluster.tracking import metric_logging
from cluster.tracking.client import create_run
from cluster.tracking.experiment import experiment_id
from cluster.tracking.metric_logging import Shipper, ship


@pytest.fixture
def run_id(client, home):
    experiment = experiment_id(client, TrackingConfig(), home)
    return create_run(client, experiment, key=uuid.uuid4().hex, name="r", parameters={}, tags={})


def history(client, run_id, metric="loss"):
    return [(one.step, one.value) for one in client.get_metric_history(run_id, metric)]


def journal_of(folder, steps):
    journal = Journal(folder)
    for step in steps:
        journal.append(Row(step, 1000 + step, {"loss": step / 2}))
    journal.flush()
    return journal


def test_journalled_rows_reach_the_tracker_with_their_steps(client, run_id, tmp_path):
    ship(client, run_id, journal_of(tmp_path, range(1, 4)).unshipped())
    assert history(client, run_id) == [(1, 0.5), (2, 1.0), (3, 1.5)]


def test_rows_sent_twice_are_stored_once(client, run_id, tmp_path):
    journal = journal_of(tmp_path, range(1, 4))
    ship(client, run_id, journal.unshipped())
    (tmp_path / "shipped.json").unlink()
    assert ship(client, run_id, unshipped(tmp_path)) == 3
    assert history(client, run_id) == [(1, 0.5), (2, 1.0), (3, 1.5)]


def test_what_was_sent_is_not_sent_again(client, run_id, tmp_path):
    journal = journal_of(tmp_path, range(1, 4))
    ship(client, run_id, journal.unshipped())
    assert (ship(client, run_id, journal.unshipped()), ship(client, run_id, unshipped(tmp_path))) == (0, 0)


def test_what_the_tracker_did_not_take_is_sent_the_next_time(client, run_id, tmp_path):
    journal = journal_of(tmp_path, range(1, 4))
    with pytest.raises(MlflowException):
        ship(client, "0" * 32, journal.unshipped())
    assert ship(client, run_id, journal.unshipped()) == 3


def test_more_metrics_than_mlflow_takes_at_once_arrive(client, run_id, tmp_path):
    ship(client, run_id, journal_of(tmp_path, range(1, 1202)).unshipped())
    assert len(history(client, run_id)) == 1201


def test_the_tracker_gets_a_status_once_all_rows_are_there(client, run_id, tmp_path):
    ship(client, run_id, journal_of(tmp_path, range(1, 4)).unshipped(), status="FINISHED")
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.fixture
def unmonitored(monkeypatch):
    """Disable system metrics, because their thread would outlive the test."""
    monkeypatch.setattr("cluster.tracking.metric_logging._start_monitor", lambda record, tracking_uri: None)


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_a_shipper_that_is_finished_has_sent_all_rows_and_the_status(
    client, run_id, unmonitored, tmp_path, status, monkeypatch
):
    monkeypatch.setitem(
        metric_logging._LAST_SECONDS, status, 60.0
    )  # a busy machine takes longer than a killed process may
    record = RunRecord(name="r", identity={}, mlflow_run_id=run_id)
    shipper = Shipper(journal_of(tmp_path, range(1, 4)), record, client.tracking_uri)
    assert (shipper.finish(status), client.get_run(run_id).info.status) == (True, status)
    assert history(client, run_id) == [(1, 0.5), (2, 1.0), (3, 1.5)]


def test_nobody_waits_long_for_a_tracker_that_takes_nothing(client, unmonitored, monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("cluster.tracking.metric_logging._LAST_SECONDS", {"FAILED": 0.5})
    record = RunRecord(name="r", identity={}, mlflow_run_id="0" * 32)
    shipper = Shipper(journal_of(tmp_path, [1]), record, client.tracking_uri)
    assert shipper.finish("FAILED") is False
    assert "the tracker does not accept metrics; training continues: " in caplog.text
    for thread in threading.enumerate():
        if thread.name == "captioning-shipper-last":
            thread.join()  # it logs until its deadline, which other tests would read
