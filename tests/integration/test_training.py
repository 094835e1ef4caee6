"""Training under Ray Train, to its end and where it fails, on folders and on a bucket: tiny runs in one session."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fsspec
import mlflow.data
import pytest
import torch
from safetensors.torch import load_file

from captioning.config import ModelConfig
from cluster.config import ClusterConfig, TrackingConfig, ValidationConfig
from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import evaluate_split
from cluster.resources.session import cluster_session
from cluster.runs.record import RECORD_NAME, load_record, local_checkpoint, lock_run
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.tracking.client import connect
from cluster.training.trainer import fit
from shards.manifest import load_manifest
from tests.support.pictures import write_annotations, write_coco
from tests.support.raw_tars import spoil_first_image
from tests.support.s3 import s3_server
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


def steps_of(outcome, client):
    """Return how often each step's loss is in MLflow."""
    return Counter(metric.step for metric in client.get_metric_history(outcome.mlflow_run_id, "train_loss_nats"))


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

    file = outcome_of_pair.best_checkpoint / "config.yaml"
    parsed = parse(JOB, ["--config", str(file)]).settings
    assert parsed == pair


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
    first = [
        min(client.get_metric_history(run_id, "train_loss_nats"), key=lambda metric: metric.step).value
        for run_id in (outcome_of_pair.mlflow_run_id, outcome.mlflow_run_id)
    ]
    assert first[0] == pytest.approx(first[1], abs=1e-5)


def test_other_settings_under_the_same_name_are_refused(outcome_of_pair, pair):
    with pytest.raises(ValueError, match=r"run undisturbed was started with other settings \(training\.seed 0 -> 1\)"):
        fit(replace(pair, training=replace(pair.training, seed=1)))


def test_checkpoints_elsewhere_than_before_are_refused(outcome_of_pair, pair):
    elsewhere = replace(pair, storage=replace(pair.storage, checkpoints="memory://bucket"))
    with pytest.raises(
        ValueError, match=r"run undisturbed keeps its checkpoints at .*/undisturbed; leave out --checkpoints, or"
    ):
        fit(elsewhere)


def test_a_second_driver_is_refused(pair, session):
    held = replace(pair, name="held")
    held.folder.mkdir(parents=True)
    lock = lock_run(held.folder)
    with lock, pytest.raises(BlockingIOError, match="run held has a live driver already"):
        fit(held)


def test_more_workers_than_the_cluster_can_hold_are_refused(pair, session):
    with pytest.raises(ValueError, match=r"15 workers of 1 CPU do not fit: the cluster's 1 node has \d+ CPU"):
        fit(replace(pair, name="large", cluster=ClusterConfig(num_workers=15)))


def test_a_gpu_that_is_not_there_is_refused(pair, session):
    with pytest.raises(ValueError, match=r"2 workers of 1 CPU, 1 GPU do not fit: .* 0 GPU, enough for 0"):
        fit(replace(pair, name="gpu", cluster=ClusterConfig(use_gpu=True)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train_split": "tarin"}, ValueError, "the shard set has no split tarin; it has train, val"),
        ({"model": ModelConfig(backbone="resnet153")}, ValueError, "backbone resnet153 .* similar names are resnet152"),
        ({"model": ModelConfig(weights="/none.pth")}, FileNotFoundError, "weights file /none.pth does not exist"),
        ({"tracking": TrackingConfig(uri="http://127.0.0.1:9")}, ConnectionError, "does not answer"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(pair, changes, error, message):
    refused = replace(pair, name="refused", **changes)
    with pytest.raises(error, match=message):
        fit(refused)
    assert not refused.folder.exists()


@pytest.fixture(scope="module")
def outcome(run, session):
    return fit(run)


@pytest.fixture(scope="module")
def spoiled_shards(drawn_shards, tmp_path_factory):
    """Return a shard set, whole by its manifest, in which one training image is no image; and the image's key."""
    folder = shutil.copytree(drawn_shards, tmp_path_factory.mktemp("spoiled") / "shards")
    return folder, spoil_first_image(folder)


def weights(outcome):
    return load_file(outcome.best_checkpoint / "model.safetensors")


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


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


SENTENCE = "एक कुत्ता बेंच पर 一只狗躺着"
"""Hindi, whose vowel signs are combining marks, and Chinese, which has no spaces."""


@pytest.fixture(scope="module")
def set_in_scripts(tmp_path_factory):
    """Return a shard set whose pictures all have one caption, in two scripts that are no alphabet."""
    folder = tmp_path_factory.mktemp("scripts")
    for split in ("train", "val"):
        content = write_coco(folder, split, num_images=15, num_captions=1)
        for annotation in content["annotations"]:
            annotation["caption"] = f"{SENTENCE}。"
        write_annotations(folder, content, name=split)
    plan = plan_conversion(folder, folder / "shards", ConversionConfig(tokenizer="unicode", minimum_word_count=1))
    convert(plan, num_workers=0)
    return folder / "shards"


def test_captions_in_scripts_of_marks_and_without_spaces_are_learnt_scored_and_written(run, session, set_in_scripts):
    training = replace(run.training, num_epochs=4 * NUM_STEPS, checkpoint_every_steps=50)
    optimizer = replace(run.optimizer, learning_rate=0.05)
    outcome = fit(replace(run, name="scripts", shards=set_in_scripts, training=training, optimizer=optimizer))
    shard_set = ShardSet(set_in_scripts)
    found = evaluate_split(outcome.best_checkpoint, shard_set, "val", step=outcome.step, batch_size=15)
    assert [*shard_set.vocabulary.words[4:]] == sorted([*SENTENCE[:-5].split(), *SENTENCE[-5:]])
    assert (found.tokenizer, {*found.captions.values()}) == ("unicode", {SENTENCE})
    assert found.scores["BLEU-4"] == pytest.approx(1)


@pytest.fixture(scope="module")
def bucket(environment):
    """Return a bucket's file system."""
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("bucket")
    return system


@pytest.fixture(scope="module")
def remote(run, session, bucket, drawn_shards, client):
    """Return what a run with its shards and its checkpoints on a bucket leaves, and what the same command then makes.

    Its checkpoints are scored beside training. Before it is marked as finished, its machine is lost, and its two latest
    checkpoints are damaged.
    """
    plan = plan_conversion(
        drawn_shards.parent / "scenes", URL, ConversionConfig(samples_per_shard=50, minimum_word_count=1)
    )
    convert(plan, num_workers=1)
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
    shutil.rmtree(remote.folder)
    (copy,) = bucket.glob(f"bucket/checkpoints/**/{RECORD_NAME}")
    bucket.pipe(copy, replace(record, is_finished=False).content())
    latest_first = sorted(record.checkpoints, key=lambda checkpoint: -checkpoint.step)
    for name, checkpoint in zip(("model.safetensors", "optimizer.pt"), latest_first, strict=False):
        (damaged,) = bucket.glob(f"bucket/checkpoints/**/{checkpoint.name}/{name}")
        content = bytearray(bucket.cat(damaged))
        content[len(content) // 2] ^= 1
        bucket.pipe(damaged, bytes(content))
    again = fit(remote)
    record = load_record(remote.folder)
    # Not the best one's: untrained captions score 0 at every step, so any checkpoint may be the best.
    latest = local_checkpoint(remote.folder, record, record.latest)
    return SimpleNamespace(
        first=first, again=again, attempt=record.attempt, weights=load_file(latest / "model.safetensors")
    )


def history(outcome, metric, client):
    return [(one.step, one.value) for one in client.get_metric_history(outcome.mlflow_run_id, metric)]


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
