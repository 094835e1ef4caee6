"""Training under Ray Train to its last step, on folders and on a bucket: tiny runs in one session."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fsspec
import mlflow.data
import pytest
import torch
from safetensors.torch import load_file

from cluster.config import ClusterConfig, ValidationConfig
from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import evaluate_split
from cluster.resources.session import cluster_session
from cluster.runs.record import load_record, local_checkpoint
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.training.trainer import fit
from shards.manifest import load_manifest
from tests.support.lost_machines import lose_machine
from tests.support.s3 import s3_server
from tests.support.scripts import SENTENCE, shards_in_scripts
from tests.support.short_runs import NUM_STEPS, short_run

CIDER_D = "validation_cider_d"
URL = "s3://bucket/sets/drawn"

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Run an S3 server, and name it and a folder of copies to all processes."""
    with s3_server() as variables, pytest.MonkeyPatch.context() as patch:
        settings = {**variables, "CAPTIONING_CACHE": str(tmp_path_factory.mktemp("cache"))}
        for name, value in settings.items():
            patch.setenv(name, value)
        yield settings


@pytest.fixture(scope="module")
def session(environment):
    """Hold a cluster whose workers find the S3 server."""
    with cluster_session(ClusterConfig()):
        yield


@pytest.fixture(scope="module")
def pair(drawn_shards, home):
    """Return a run of two workers."""
    return short_run(drawn_shards, home.home, name="undisturbed")


@pytest.fixture(scope="module")
def run(drawn_shards, home):
    """Return a run of one worker."""
    return short_run(drawn_shards, home.home, name="alone", cluster=ClusterConfig(num_workers=1))


@pytest.fixture(scope="module")
def outcome_of_pair(pair, session):
    return fit(pair)


def history(outcome, metric, client):
    return [(one.step, one.value) for one in client.get_metric_history(outcome.mlflow_run_id, metric)]


def steps_of(outcome, client):
    """Return how often each step's loss is in MLflow."""
    return Counter(step for step, _ in history(outcome, "train_loss_nats", client))


def test_training_ends_at_its_last_step(outcome_of_pair):
    assert (outcome_of_pair.step, outcome_of_pair.is_tracked) == (NUM_STEPS, True)


def test_every_rank_logs_run_rank_and_step(outcome_of_pair):
    import ray

    logs = Path(ray._private.worker._global_node.get_logs_dir_path()).glob("worker-*.err")
    found = set(
        re.findall(r"INFO run undisturbed rank (\d) step (\d+): training ended", "".join(map(Path.read_text, logs)))
    )
    assert found == {("0", f"{NUM_STEPS}"), ("1", f"{NUM_STEPS}")}


def test_checkpoints_are_at_their_steps_and_at_the_end(pair, outcome_of_pair):
    assert [checkpoint.step for checkpoint in load_record(pair.folder).checkpoints] == [5, 10, NUM_STEPS]


def test_the_tracker_has_every_step_once_and_the_run_is_finished(outcome_of_pair, client):
    tracked = client.get_run(outcome_of_pair.mlflow_run_id)
    steps = steps_of(outcome_of_pair, client)
    assert (tracked.info.status, steps) == ("FINISHED", Counter(range(1, NUM_STEPS + 1)))


def test_the_tracker_has_parameters_dataset_commit_and_placement(outcome_of_pair, client, pair):
    tracked = client.get_run(outcome_of_pair.mlflow_run_id)
    digest = tracked.data.params["data.shards"]
    file = client.download_artifacts(outcome_of_pair.mlflow_run_id, "starts/start-1.json")
    placement = json.loads(Path(file).read_text())
    found = (
        tracked.data.params["model.hidden_size"],
        tracked.inputs.dataset_inputs[0].dataset.digest,
        "mlflow.source.git.commit" in tracked.data.tags,
        placement["cluster"],
    )
    assert found == ("16", digest[:36], True, "2 workers of 1 CPUs")


def test_the_checkpoint_carries_its_lineage(outcome_of_pair):
    description = json.loads((outcome_of_pair.best_checkpoint / "checkpoint.json").read_text())
    assert description["lineage"]["mlflow_run_id"] == outcome_of_pair.mlflow_run_id


def test_the_checkpoints_configuration_is_a_valid_one(outcome_of_pair, pair):
    from jobs.console.parsing import parse
    from jobs.train import JOB

    parsed = parse(JOB, ["--config", str(outcome_of_pair.best_checkpoint / "config.yaml")])
    assert parsed.settings == pair


def test_the_same_command_after_the_end_does_nothing(outcome_of_pair, pair):
    attempts = load_record(pair.folder).attempt
    assert (fit(pair), load_record(pair.folder).attempt) == (outcome_of_pair, attempts)


def test_the_same_command_after_the_end_sends_what_the_tracker_lacks(outcome_of_pair, pair, client):
    (pair.folder / "journal" / "shipped.json").unlink()
    client.update_run(outcome_of_pair.mlflow_run_id, status="RUNNING")
    assert fit(pair).is_tracked
    steps = steps_of(outcome_of_pair, client)
    assert (client.get_run(outcome_of_pair.mlflow_run_id).info.status, set(steps.values())) == ("FINISHED", {1})


def test_one_worker_makes_the_same_batches_as_two(outcome, outcome_of_pair, client):
    (_, first), (_, second) = (min(history(one, "train_loss_nats", client)) for one in (outcome_of_pair, outcome))
    assert first == pytest.approx(second, abs=1e-5)


@pytest.fixture(scope="module")
def outcome(run, session):
    return fit(run)


def weights(outcome):
    return load_file(outcome.best_checkpoint / "model.safetensors")


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_captions_in_scripts_of_marks_and_without_spaces_are_learnt_scored_and_written(run, session, tmp_path):
    shards = shards_in_scripts(tmp_path)
    shard_set = ShardSet(shards)
    training = replace(run.training, num_epochs=4 * NUM_STEPS, checkpoint_every_steps=50)
    optimizer = replace(run.optimizer, learning_rate=0.05)
    outcome = fit(replace(run, name="scripts", shards=shards, training=training, optimizer=optimizer))
    found = evaluate_split(outcome.best_checkpoint, shard_set, "val", step=outcome.step, batch_size=15)
    assert [*shard_set.vocabulary.words[4:]] == sorted([*SENTENCE[:-5].split(), *SENTENCE[-5:]])
    assert (found.tokenizer, {*found.captions.values()}) == ("unicode", {SENTENCE})
    assert found.scores["BLEU-4"] == pytest.approx(1)


@pytest.fixture(scope="module")
def remote(run, session, drawn_shards, client):
    """Return what a run with its shards and its checkpoints on a bucket leaves, and what the same command then makes.

    Its checkpoints are scored beside training. Its machine is lost before it is marked as finished: ``lose_machine``.
    """
    system, conversion = (
        fsspec.filesystem("s3", skip_instance_cache=True),
        ConversionConfig(samples_per_shard=50, minimum_word_count=1),
    )
    system.mkdir("bucket")
    convert(plan_conversion(drawn_shards.parent / "scenes", URL, conversion), num_workers=1)
    remote = replace(
        run,
        name="remote",
        shards=URL,
        cluster=replace(run.cluster, num_loader_processes=1),
        storage=replace(run.storage, checkpoints="s3://bucket/checkpoints"),
        validation=ValidationConfig(where="beside", best_by=CIDER_D, beam_size=1),
    )
    outcome = fit(remote)
    record = load_record(remote.folder)
    first = SimpleNamespace(outcome=outcome, record=record, weights=weights(outcome))
    first.losses, first.scores = (history(outcome, metric, client) for metric in ("train_loss_nats", CIDER_D))
    lose_machine(remote.folder, record, system, "bucket/checkpoints")
    again = fit(remote)
    record = load_record(remote.folder)
    # Not the best one's: untrained captions score 0 at every step, so any checkpoint may be the best.
    latest = load_file(local_checkpoint(remote.folder, record, record.latest) / "model.safetensors")
    return SimpleNamespace(first=first, again=again, attempt=record.attempt, weights=latest)


def test_training_on_a_bucket_takes_the_steps_of_training_on_a_folder(outcome, remote, client):
    local = history(outcome, "train_loss_nats", client)
    assert (len(local), local) == (NUM_STEPS, remote.first.losses)


def test_training_on_a_bucket_ends_in_the_same_weights(outcome, remote):
    assert same(remote.first.weights, weights(outcome))


def test_identity_is_that_of_the_folder(run, outcome, remote):
    assert load_record(run.folder).identity == remote.first.record.identity


def test_the_node_keeps_one_copy_of_each_shard(remote, environment, drawn_shards):
    digests = {shard.sha256 for shard in load_manifest(drawn_shards).shards}
    kept = {path.name for path in Path(environment["CAPTIONING_CACHE"]).iterdir()}
    assert kept - {"locks", "verified", "digests", "meteor"} == digests  # beside them, what other commands remember


def test_the_tracker_names_the_bucket(remote, client):
    file = client.download_artifacts(remote.first.outcome.mlflow_run_id, "starts/start-1.json")
    assert json.loads(Path(file).read_text())["shards"] == URL


def test_mlflow_opens_the_bucket_that_a_run_was_trained_on(remote, environment, client, tmp_path):
    inputs = client.get_run(remote.first.outcome.mlflow_run_id).inputs.dataset_inputs
    sources = {one.tags[0].value: mlflow.data.get_source(one) for one in inputs}
    assert {(source._get_source_type(), source.uri) for source in sources.values()} == {("s3", URL)}
    loaded = sources["training"].load(str(tmp_path))
    assert load_manifest(Path(loaded)).digest == remote.first.record.identity["data.shards"]


def test_a_checkpoint_is_scored_beside_training(remote):
    metrics, steps = remote.first.record.latest.metrics, [step for step, _ in remote.first.scores]
    assert (set(metrics) >= {CIDER_D, VALIDATION_LOSS}, steps[-1], len(steps)) == (True, NUM_STEPS, len(set(steps)))


def test_the_score_beside_is_that_of_the_workers(run, outcome, remote):
    score = load_record(run.folder).latest.metrics[VALIDATION_LOSS]
    assert remote.first.record.latest.metrics[VALIDATION_LOSS] == pytest.approx(score, abs=1e-5)


def test_a_lost_machine_and_damaged_checkpoints_give_way_to_the_checkpoint_before_them(outcome, remote):
    assert (remote.again.step, remote.attempt) == (NUM_STEPS, 2)
    assert same(remote.weights, weights(outcome))
