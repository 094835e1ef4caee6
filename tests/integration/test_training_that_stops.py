"""Training that is refused, fails, or stops before its last step, and what the same command then does."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import ray

from captioning.config import ModelConfig
from cluster.config import ClusterConfig, TrackingConfig, ValidationConfig
from cluster.coordination.messages import CoordinatorSettings
from cluster.runs.record import RunRecord, load_record, lock_run
from cluster.tracking.client import connect
from cluster.training.driver import start_coordinator
from cluster.training.trainer import fit
from tests.support.raw_tars import spoil_first_image
from tests.support.short_runs import NUM_STEPS, short_run

SETTINGS = CoordinatorSettings(tracking_uri="sqlite://")

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


@pytest.fixture(scope="module")
def run(drawn_shards, home):
    """Return a run of one worker."""
    return short_run(drawn_shards, home.home, name="alone", cluster=ClusterConfig(num_workers=1))


def test_a_second_driver_is_refused(run, session):
    held = replace(run, name="held")
    held.folder.mkdir(parents=True)
    lock = lock_run(held.folder)
    with lock, pytest.raises(BlockingIOError, match="run held has a live driver already"):
        fit(held)


def test_more_workers_than_the_cluster_can_hold_are_refused(run, session):
    with pytest.raises(ValueError, match=r"15 workers of 1 CPU do not fit: the cluster's 1 node has \d+ CPU"):
        fit(replace(run, name="large", cluster=ClusterConfig(num_workers=15)))


def test_a_gpu_that_is_not_there_is_refused(run, session):
    with pytest.raises(ValueError, match=r"2 workers of 1 CPU, 1 GPU do not fit: .* 0 GPU, enough for 0"):
        fit(replace(run, name="gpu", cluster=ClusterConfig(use_gpu=True)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train_split": "tarin"}, ValueError, "the shard set has no split tarin; it has train, val"),
        ({"model": ModelConfig(backbone="resnet153")}, ValueError, "backbone resnet153 .* similar names are resnet152"),
        ({"model": ModelConfig(weights="/none.pth")}, FileNotFoundError, "weights file /none.pth does not exist"),
        ({"tracking": TrackingConfig(uri="http://127.0.0.1:9")}, ConnectionError, "does not answer"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(run, changes, error, message):
    refused = replace(run, name="refused", **changes)
    with pytest.raises(error, match=message):
        fit(refused)
    assert not refused.folder.exists()


@pytest.fixture
def folder(session, tmp_path):
    """Return the folder of a run that has a record."""
    RunRecord(name=tmp_path.name, identity={}).save(tmp_path)
    return tmp_path


def test_a_run_that_is_locked_by_another_process_is_refused(folder):
    with (
        lock_run(folder),
        pytest.raises(BlockingIOError, match=r"has a live driver already, process \d+ on .*; wait for it, or stop it"),
    ):
        start_coordinator(folder, SETTINGS)


def test_a_run_that_has_a_coordinator_on_this_cluster_is_refused(folder):
    actor = start_coordinator(folder, SETTINGS)
    with pytest.raises(BlockingIOError, match="has a live driver on this cluster; wait for it, or stop it"):
        start_coordinator(folder, SETTINGS)
    ray.kill(actor)


def test_a_coordinator_that_does_not_start_says_why(session, tmp_path):
    with pytest.raises(RuntimeError, match=r"did not start: .* no run\.json; run the same command again to write it"):
        start_coordinator(tmp_path, SETTINGS)


@pytest.fixture(scope="module")
def spoiled_shards(drawn_shards, tmp_path_factory):
    """Return a shard set, whole by its manifest, in which one training image is no image; and the image's key."""
    folder = shutil.copytree(drawn_shards, tmp_path_factory.mktemp("spoiled") / "shards")
    return folder, spoil_first_image(folder)


@pytest.fixture(scope="module")
def spoiled(run, spoiled_shards):
    """Return a run over a bad sample, whose score never improves, because its weights hardly change."""
    optimizer = replace(run.optimizer, learning_rate=1e-30)
    return replace(run, name="spoiled", shards=spoiled_shards[0], optimizer=optimizer)


@pytest.fixture(scope="module")
def stopped(spoiled, session):
    """Return the message by which a run over a bad sample ends."""
    with pytest.raises(RuntimeError, match="training failed") as failure:
        fit(spoiled)
    return str(failure.value)


def test_a_bad_sample_ends_the_run_by_key_and_shard(stopped, spoiled_shards):
    assert f"1 bad sample, {spoiled_shards[1]} of train-000000.tar (the image does not decode" in stopped


def test_the_page_of_a_failed_run_says_why(stopped, run):
    page = (run.folder.parent / "spoiled" / "run.html").read_text()
    assert "Not finished: training failed on rank 0 (process " in page


def test_the_message_names_place_reason_checkpoint_and_command(stopped, run):
    said = [
        part in stopped
        for part in (
            "training failed on rank 0 (process ",
            "There is no further attempt: every worker failed with the same error.",
            f"captioning train --config {run.folder.parent / 'spoiled' / 'config.yaml'}",
            "lines of that worker's log:",
        )
    ]
    assert said == [True] * 4


def test_the_whole_bad_batch_is_written_down(stopped, run, spoiled_shards):
    path = next((run.folder.parent / "spoiled" / "bad-samples").iterdir())
    document = json.loads(path.read_text())
    known = sum(loss is not None for loss in document["losses_nats"].values())
    assert (str(path) in stopped, document["bad"][0]["key"], known) == (True, spoiled_shards[1], 14)


def test_other_settings_under_the_same_name_are_refused(stopped, spoiled):
    with pytest.raises(ValueError, match=r"run spoiled was started with other settings \(training\.seed 0 -> 1\)"):
        fit(replace(spoiled, training=replace(spoiled.training, seed=1)))


def test_checkpoints_elsewhere_than_before_are_refused(stopped, spoiled):
    elsewhere = replace(spoiled, storage=replace(spoiled.storage, checkpoints="memory://bucket"))
    with pytest.raises(
        ValueError, match=r"run spoiled keeps its checkpoints at .*/spoiled; leave out --checkpoints, or"
    ):
        fit(elsewhere)


def test_a_run_that_failed_is_marked_so(stopped, run):
    record = load_record(run.folder.parent / "spoiled")
    client = connect(run.tracking, run.storage)
    assert (client.get_run(record.mlflow_run_id).info.status, record.attempt) == ("FAILED", 1)


@pytest.fixture(scope="module")
def skipping(spoiled):
    """Return the same run, which leaves bad samples out, and stops early."""
    training = replace(spoiled.training, on_bad_sample="skip")
    return replace(spoiled, training=training, validation=ValidationConfig(stop_after=1))


@pytest.fixture(scope="module")
def early(stopped, skipping):
    return fit(skipping)


def test_the_same_run_goes_on_without_the_bad_sample_until_its_score_no_longer_improves(early, skipping, client):
    tracked, reason = client.get_run(early.mlflow_run_id), early.stopped_early
    page = (skipping.folder / "run.html").read_text()
    assert re.fullmatch(r"validation loss not better than \d\.\d+ of step 5 in 1 validation", reason)
    assert (early.step, tracked.data.tags["stopped_early"], tracked.info.status) == (10, reason, "FINISHED")
    assert f"Stopped early, at step 10: {reason}" in page


def test_the_same_command_says_why_the_run_stopped(early, skipping, caplog):
    caplog.set_level("INFO")
    assert fit(skipping) == early
    assert (
        f"run spoiled has stopped early at step 10 ({early.stopped_early}); to train on, use a larger --valid"
        in caplog.text
    )


def test_a_run_that_stopped_early_trains_on_where_it_may(early, skipping, client):
    outcome = fit(replace(skipping, validation=replace(skipping.validation, stop_after=0)))
    tags = client.get_run(early.mlflow_run_id).data.tags
    assert (outcome.step, outcome.stopped_early, tags["stopped_early"]) == (NUM_STEPS, "", "")


def test_self_critical_training_can_be_added_to_a_finished_run(early, skipping, client):
    training = replace(skipping.training, self_critical_epochs=0.25, self_critical_samples=2)
    longer = replace(skipping, training=training, validation=ValidationConfig(best_by="validation_cider_d"))
    outcomes = [fit(longer), fit(longer)]
    tracked = client.get_run(early.mlflow_run_id)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].step > NUM_STEPS
    assert (tracked.data.params["training.self_critical_epochs"], tracked.info.status) == ("0.25", "FINISHED")
    with pytest.raises(ValueError, match=r"training.self_critical_epochs 0\.25 -> "):
        fit(skipping)


def test_a_crash_that_comes_back_ends_the_run_soon(run, session):
    crashing = replace(run, name="crashing", storage=replace(run.storage, ledger=True))
    crashing.folder.mkdir(parents=True)
    (crashing.folder / "ledger").write_text("a file where the ledger's folder should be")
    with pytest.raises(
        RuntimeError, match=r"FileExistsError(.|\n)*the same failure occurred 2 times in a row at the same step"
    ):
        fit(crashing)
    assert load_record(crashing.folder).attempt == 2
