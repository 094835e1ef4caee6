import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from captioning.config import ModelConfig
from cluster.config import ClusterConfig, TrackingConfig
from cluster.runs.record import load_record, lock_run
from cluster.tracking.client import connect
from cluster.training.trainer import build_trainer, config_text, fit
from cluster.worker.rank import WorkerConfig
from tests.support.short_runs import NUM_STEPS, short_run


@pytest.fixture(scope="module")
def run(drawn_shards, home):
    return short_run(drawn_shards, home.home, name="undisturbed")


@pytest.fixture(scope="module")
def outcome(run, session):
    return fit(run)


@pytest.fixture(scope="module")
def client(run):
    return connect(run.tracking, run.storage)


def weights(outcome):
    return load_file(outcome.best_checkpoint / "model.safetensors")


def test_a_trainer_is_described_before_it_starts(run):
    wanted = replace(run, cluster=ClusterConfig(num_workers=3, cpus_per_worker=2, use_gpu=True))
    config = WorkerConfig(run=wanted, coordinator=None, config_text="", lineage={})
    trainer = build_trainer(config, start=4)
    scaling = trainer.scaling_config
    assert (scaling.num_workers, scaling.resources_per_worker, trainer.run_config.name) == (
        3, {"CPU": 2, "GPU": 1}, "start-4",
    )  # fmt: skip


def test_credentials_are_no_part_of_the_recorded_configuration(run):
    tracked = replace(run, tracking=TrackingConfig(uri="http://me:secret@host:5000"))
    assert "secret" not in config_text(tracked)


@pytest.mark.cluster
def test_training_ends_at_its_last_step(outcome):
    assert (outcome.step, outcome.is_tracked) == (NUM_STEPS, True)


@pytest.mark.cluster
def test_every_rank_logs_run_rank_and_step(outcome):
    import ray

    logs = Path(ray._private.worker._global_node.get_logs_dir_path()).glob("worker-*.err")
    found = set(re.findall(r"INFO run undisturbed rank (\d) step (\d+): ends", "".join(map(Path.read_text, logs))))
    assert found == {("0", f"{NUM_STEPS}"), ("1", f"{NUM_STEPS}")}


@pytest.mark.cluster
def test_checkpoints_are_at_their_steps_and_at_the_end(run, outcome):
    assert [checkpoint.step for checkpoint in load_record(run.folder).checkpoints] == [5, 10, NUM_STEPS]


@pytest.mark.cluster
def test_the_tracker_has_every_step_once_and_the_run_is_finished(outcome, client):
    tracked = client.get_run(outcome.mlflow_run_id)
    steps = Counter(metric.step for metric in client.get_metric_history(outcome.mlflow_run_id, "train_loss_nats"))
    assert (tracked.info.status, steps) == ("FINISHED", Counter(range(1, NUM_STEPS + 1)))


@pytest.mark.cluster
def test_the_tracker_has_parameters_dataset_commit_and_placement(outcome, client, run):
    tracked = client.get_run(outcome.mlflow_run_id)
    digest = tracked.data.params["data.shards"]
    found = (
        tracked.data.params["model.hidden_size"],
        tracked.inputs.dataset_inputs[0].dataset.digest,
        "mlflow.source.git.commit" in tracked.data.tags,
        tracked.data.tags["start_1.cluster"],
    )
    assert found == ("16", digest[:36], True, "2 workers of 1 CPUs")


@pytest.mark.cluster
def test_the_checkpoint_carries_its_lineage(outcome):
    description = json.loads((outcome.best_checkpoint / "checkpoint.json").read_text())
    assert description["lineage"]["mlflow_run_id"] == outcome.mlflow_run_id


@pytest.mark.cluster
def test_the_checkpoints_configuration_is_a_valid_one(outcome, run):
    from jobs.console.parsing import parse
    from jobs.train import JOB

    file = outcome.best_checkpoint / "config.yaml"
    parsed = parse(JOB, ["--config", str(file)])
    assert parsed.settings == run


@pytest.mark.cluster
def test_the_same_command_after_the_end_does_nothing(outcome, run):
    attempts = load_record(run.folder).attempt
    assert (fit(run), load_record(run.folder).attempt) == (outcome, attempts)


@pytest.mark.cluster
def test_the_same_command_after_the_end_sends_what_the_tracker_lacks(outcome, run, client):
    (run.folder / "journal" / "shipped.json").unlink()
    client.update_run(outcome.mlflow_run_id, status="RUNNING")
    assert fit(run).is_tracked
    steps = Counter(metric.step for metric in client.get_metric_history(outcome.mlflow_run_id, "train_loss_nats"))
    assert (client.get_run(outcome.mlflow_run_id).info.status, set(steps.values())) == ("FINISHED", {1})


@pytest.mark.cluster
def test_one_worker_makes_the_same_batches_as_two(outcome, run, session, client):
    alone = fit(replace(run, name="alone", cluster=ClusterConfig(num_workers=1)))
    first = [
        min(client.get_metric_history(run_id, "train_loss_nats"), key=lambda metric: metric.step).value
        for run_id in (outcome.mlflow_run_id, alone.mlflow_run_id)
    ]
    assert first[0] == pytest.approx(first[1], abs=1e-5)


@pytest.mark.cluster
def test_other_settings_under_the_same_name_are_refused(outcome, run):
    with pytest.raises(ValueError, match=r"run undisturbed was started with other settings \(training\.seed 0 -> 1\)"):
        fit(replace(run, training=replace(run.training, seed=1)))


@pytest.mark.cluster
def test_checkpoints_elsewhere_than_before_are_refused(outcome, run):
    elsewhere = replace(run, storage=replace(run.storage, checkpoints="memory://bucket"))
    with pytest.raises(ValueError, match="run undisturbed keeps its checkpoints at its folder in the home folder"):
        fit(elsewhere)


@pytest.mark.cluster
def test_a_second_driver_is_refused(run, session):
    held = replace(run, name="held")
    held.folder.mkdir(parents=True)
    lock = lock_run(held.folder)
    with lock, pytest.raises(BlockingIOError, match="run held has a live driver already"):
        fit(held)


@pytest.mark.cluster
def test_more_workers_than_the_cluster_can_hold_are_refused(run, session):
    with pytest.raises(ValueError, match=r"15 workers of 1 CPU do not fit: the cluster's 1 node has \d+ CPU"):
        fit(replace(run, name="large", cluster=ClusterConfig(num_workers=15)))


@pytest.mark.cluster
def test_a_gpu_that_is_not_there_is_refused(run, session):
    with pytest.raises(ValueError, match=r"2 workers of 1 CPU, 1 GPU do not fit: .* 0 GPU, enough for 0"):
        fit(replace(run, name="gpu", cluster=ClusterConfig(use_gpu=True)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train_split": "tarin"}, ValueError, "the shard set has no split tarin; it has train, val"),
        ({"model": ModelConfig(backbone="resnet153")}, ValueError, "backbone resnet153 .* nearest are resnet152"),
        ({"model": ModelConfig(weights="/none.pth")}, FileNotFoundError, "weights file /none.pth does not exist"),
        ({"tracking": TrackingConfig(uri="http://127.0.0.1:9")}, ConnectionError, "does not answer"),
    ],
)
@pytest.mark.cluster
def test_what_cannot_work_is_refused_before_anything_starts(run, changes, error, message):
    refused = replace(run, name="refused", **changes)
    with pytest.raises(error, match=message):
        fit(refused)
    assert not refused.folder.exists()


def test_an_altered_shard_is_refused(run, drawn_shards, tmp_path):
    import shutil

    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    shard = folder / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"1 of 3 shards differ from the manifest, first train-000000\.tar"):
        fit(replace(run, name="altered", shards=folder))


def test_a_missing_shard_is_refused(run, drawn_shards, tmp_path):
    import shutil

    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    (folder / "val-000000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 1 shards, first val-000000\.tar"):
        fit(replace(run, name="missing", shards=folder))
