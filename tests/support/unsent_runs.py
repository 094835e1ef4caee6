"""Finished runs with a journal that was never sent to MLflow."""

import uuid

from cluster.config import TrackingConfig
from cluster.runs.journal import Journal, Row
from cluster.runs.record import RunRecord, load_record
from cluster.tracking.client import create_run
from cluster.tracking.experiment import experiment_id

STEPS = range(1, 61)


def unsent_run(client, home):
    """Write a finished run with a journal of six segments, none of them sent; return its folder."""
    name = f"run-{uuid.uuid4().hex[:8]}"
    experiment = experiment_id(client, TrackingConfig(), home)
    run_id = create_run(client, experiment, key=name, name=name, parameters={}, tags={})
    folder = home.home / "training" / name
    RunRecord(name=name, identity={}, mlflow_run_id=run_id, is_finished=True).save(folder)
    journal = Journal(folder / "journal")
    for step in STEPS:
        journal.append(Row(step, 1_000_000 + step, {"loss": step / 2, "rate": 0.1}))
        if step % 10 == 0:
            journal.flush()
    return folder


def run_id_of(folder):
    return load_record(folder).mlflow_run_id


def history(client, folder):
    """Return every metric value that MLflow has of a run, as (metric, step, value, timestamp)."""
    run_id = run_id_of(folder)
    return [
        (key, one.step, one.value, one.timestamp)
        for key in ("loss", "rate")
        for one in client.get_metric_history(run_id, key)
    ]


def truncate(segment):
    segment.write_bytes(segment.read_bytes()[:-20])
