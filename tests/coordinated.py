"""Runs that have just started, and what their coordinators are told."""

import time
import uuid

from cluster.config import TrackingConfig
from cluster.journal import Row
from cluster.protocol import CoordinatorSettings
from cluster.runs import RunRecord
from cluster.tracking import create_run, experiment_id, tracking_uri


def start_run(folder, client, home):
    """Make a folder that of a tracked run which has just started; return it."""
    experiment = experiment_id(client, TrackingConfig(), home)
    run_id = create_run(
        client, experiment, key=uuid.uuid4().hex, name="r", parameters={}, tags={}, dataset=("s", "s", "d")
    )
    RunRecord(name="r", identity={}, mlflow_run_id=run_id, num_starts=1).save(folder)
    return folder


def settings(home, **changes):
    uri = tracking_uri(TrackingConfig(), home)
    return CoordinatorSettings(**{"tracking_uri": uri, "keep_best": 1, "keep_last": 1, "batch_size": 8, **changes})


def row(step, **metrics):
    return Row(step, 1000 + step, {"loss": 1.0, **metrics})


def eventually(condition, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
