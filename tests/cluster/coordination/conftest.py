import uuid

import pytest


@pytest.fixture(autouse=True)
def quick_watchdog(monkeypatch):
    """Let the watchdog look often: tests wait for what it sees."""
    monkeypatch.setattr("cluster.coordination.hang_detection._POLL_SECONDS", 0.05)


@pytest.fixture
def folder(tmp_path, client, home):
    """Return the folder of a tracked run that has just started."""
    from cluster.config import TrackingConfig
    from cluster.runs.record import RunRecord
    from cluster.tracking.client import create_run
    from cluster.tracking.experiment import experiment_id

    experiment = experiment_id(client, TrackingConfig(), home)
    run_id = create_run(client, experiment, key=uuid.uuid4().hex, name="r", parameters={}, tags={})
    RunRecord(name="r", identity={}, mlflow_run_id=run_id, num_starts=1).save(tmp_path)
    return tmp_path
