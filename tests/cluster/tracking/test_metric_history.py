"""Metrics of a run, read back from the tracker."""

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from cluster.tracking.metric_history import metrics_by_step


def test_metrics_are_by_step_and_those_that_are_not_wanted_or_not_there_are_left_out(client):
    run_id = client.create_run("0").info.run_id
    rows = [("loss", 2.0, 20, 2), ("loss", 3.0, 10, 1), ("epoch", 1.0, 20, 2), ("other", 1.0, 30, 3)]
    client.log_batch(run_id, metrics=[Metric(*row) for row in rows])
    assert metrics_by_step(client, run_id, ("loss", "epoch", "reward")) == (
        {1: {"loss": 3.0}, 2: {"epoch": 1.0, "loss": 2.0}},
        [20, 10, 20],
    )


def test_a_run_that_the_tracker_does_not_have_is_an_error(client):
    with pytest.raises(MlflowException, match="not found"):
        metrics_by_step(client, "0" * 32, ("loss",))
