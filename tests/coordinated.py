"""Runs with a coordinator."""

import time
import uuid

import pytest

from cluster.config import StorageConfig, TrackingConfig
from cluster.coordinator import Coordinator
from cluster.journal import Row
from cluster.protocol import CoordinatorSettings
from cluster.runs import VALIDATION_LOSS, RunRecord
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
    made = Coordinator(folder, settings(storage))
    yield made
    made.finish("FAILED")


def settings(storage, **changes):
    uri = tracking_uri(TrackingConfig(), storage)
    return CoordinatorSettings(**{"tracking_uri": uri, "keep_best": 1, "keep_last": 1, "batch_size": 8, **changes})


def row(step, **metrics):
    return Row(step, 1000 + step, {"loss": 1.0, **metrics})


def eventually(condition, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def write_checkpoint(folder, step, attempt):
    (folder / "checkpoints" / f"step-{step:08d}-attempt-{attempt}").mkdir(parents=True)


def metrics(loss):
    return {VALIDATION_LOSS: loss}
