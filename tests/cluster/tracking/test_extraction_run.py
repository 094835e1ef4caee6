"""The MLflow run of an extraction: ``test_extract`` of the jobs makes one by a command."""

import mlflow.data
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.config import TrackingConfig
from cluster.data.extraction import extract
from cluster.runs.claim import ClaimLostError
from cluster.tracking.datasets import split_inputs
from cluster.tracking.extraction_run import Extraction, extraction_run
from shards.manifest import load_manifest
from tests.support.feature_sets import plan
from tests.support.ports import free_port


@pytest.fixture
def started(home, drawn_shards, tmp_path):
    """Return a plan of an extraction, and a function that starts its MLflow run."""
    planned = plan(drawn_shards, tmp_path / "features", splits=["val"])

    def start(**tracker):
        source = planned.work.source
        inputs = split_inputs(source, load_manifest(source), [("val", "extraction")])
        extraction = Extraction(source, inputs, planned.work.folder, planned.manifest)
        return extraction_run(TrackingConfig(**tracker), home, extraction, is_resumed=bool(tracker))

    return planned, start


def test_a_run_has_what_the_extraction_reads_and_makes(started, client, drawn_shards):
    planned, start = started
    with start() as run:
        assert client.get_run(run.mlflow_run_id).info.status == "RUNNING"
        run.log(extract(planned, num_workers=0), num_images=30, seconds=2.0)
    found = client.get_run(run.mlflow_run_id)
    assert (found.info.run_name, found.info.status) == ("extract-features", "FINISHED")
    assert found.data.metrics == {
        "images/val": 30, "images_without_features": 0, "images_per_second": 15, "seconds": 2,
    }  # fmt: skip
    assert found.data.tags["features_digest"] == planned.digest
    assert found.data.tags["mlflow.note.content"] == (
        f"features of squeezenet1\\_1 for the images of {drawn_shards.name}: views 1, regions 1, channels 512"
    )
    assert found.data.params["backbone"] == "squeezenet1_1"
    [read] = found.inputs.dataset_inputs
    assert (read.dataset.name, read.tags[0].value) == (f"{drawn_shards.name}-val", "extraction")
    assert mlflow.data.get_source(read).uri == f"{drawn_shards}"


def test_the_next_start_goes_on_in_the_same_run(started, client):
    planned, start = started
    with pytest.raises(ValueError, match="an image"), start() as first:
        raise ValueError("an image does not decode")
    assert client.get_run(first.mlflow_run_id).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), start() as second:
        raise KeyboardInterrupt
    assert client.get_run(second.mlflow_run_id).info.status == "KILLED"
    with start() as third:
        third.log(planned.manifest, num_images=0, seconds=0.1)
    assert first.mlflow_run_id == second.mlflow_run_id == third.mlflow_run_id
    found = client.get_run(third.mlflow_run_id)
    assert (found.info.status, "images_per_second" in found.data.metrics) == ("FINISHED", False)


def test_a_tracker_that_fails_at_the_end_costs_no_features(started, monkeypatch, caplog):
    planned, start = started

    def refuse(*_, **__):
        raise MlflowException("the database is locked")

    with start() as run:
        monkeypatch.setattr(MlflowClient, "log_batch", refuse)
        monkeypatch.setattr(MlflowClient, "set_terminated", pytest.fail)  # each request that fails takes minutes
        run.log(extract(planned, num_workers=0), num_images=30, seconds=2.0)
    assert "the tracker may lack metrics and the end of this extraction: " in caplog.text


def test_a_tracker_that_does_not_answer_when_the_extraction_is_resumed_is_a_warning(started, caplog):
    _, start = started
    with start(uri=f"http://127.0.0.1:{free_port()}") as run:
        assert run is None
    assert "this extraction goes on without the tracker: " in caplog.text


def test_a_process_that_was_cut_off_does_not_end_the_run_of_the_one_that_extracts_now(started, client):
    _, start = started
    with start() as owner:
        with pytest.raises(ClaimLostError), start():
            raise ClaimLostError("another process writes")
        assert client.get_run(owner.mlflow_run_id).info.status == "RUNNING"
