"""A shard set in a bucket, written and trained on by the workers of a cluster."""

from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from cluster.config import ClusterConfig, StorageConfig, TrainRun
from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.resources.session import cluster_session
from cluster.runs.record import load_record
from cluster.tracking.client import connect
from cluster.training.trainer import fit
from shards.manifest import load_manifest
from tests.support.s3 import s3_server

pytestmark = pytest.mark.cluster

URL = "s3://bucket/sets/drawn"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Run an S3 server, and name it and a folder of copies to all processes."""
    with s3_server() as variables, pytest.MonkeyPatch.context() as patch:
        settings = {**variables, "CAPTIONING_CACHE": str(tmp_path_factory.mktemp("cache"))}
        for name, value in settings.items():
            patch.setenv(name, value)
        yield settings


@pytest.fixture(scope="module")
def runs(environment, drawn_shards, tmp_path_factory):
    """Train the same twice, on a folder, and on a bucket to which the same was converted; return both, ended."""
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    local = TrainRun(
        name="local",
        shards=drawn_shards,
        model=ModelConfig(
            backbone="squeezenet1_1", weights="none", image_size_px=64, embedding_size=16, hidden_size=16, dropout=0.3
        ),
        optimizer=OptimizerConfig(warmup_steps=2),
        training=TrainingConfig(num_epochs=1.5, batch_size=30, shuffle_window_shards=1),
        storage=StorageConfig(home=tmp_path_factory.mktemp("home")),
    )
    remote = replace(local, name="remote", shards=URL, cluster=ClusterConfig(num_loader_processes=1))
    with cluster_session(ClusterConfig()):
        scenes = drawn_shards.parent / "scenes"
        plan = plan_conversion(scenes, URL, ConversionConfig(samples_per_shard=50, minimum_word_count=1))
        convert(plan, num_workers=2)
        return [(run, fit(run)) for run in (local, remote)]


def losses(run, outcome):
    history = connect(run.tracking, run.storage).get_metric_history(outcome.mlflow_run_id, "train_loss_nats")
    return [(metric.step, metric.value) for metric in history]


def test_training_on_a_bucket_takes_the_steps_of_training_on_a_folder(runs):
    local, remote = (losses(*run) for run in runs)
    assert (len(local), local) == (6, remote)


def test_training_on_a_bucket_ends_in_the_same_weights(runs):
    local, remote = (load_file(outcome.best_checkpoint / "model.safetensors") for _, outcome in runs)
    assert all(torch.equal(local[name], remote[name]) for name in local)


def test_identity_is_that_of_the_folder(runs):
    local, remote = (load_record(run.folder).identity for run, _ in runs)
    assert local == remote


def test_the_node_keeps_one_copy_of_each_shard(runs, environment, drawn_shards):
    digests = {shard.sha256 for shard in load_manifest(drawn_shards).shards}
    assert {path.name for path in Path(environment["CAPTIONING_CACHE"]).iterdir()} == digests | {
        "locks",
        "verified",
        "digests",
    }


def test_the_tracker_names_the_bucket(runs):
    run, outcome = runs[1]
    tracked = connect(run.tracking, run.storage).get_run(outcome.mlflow_run_id)
    assert tracked.data.tags["start_1.shards"] == URL
