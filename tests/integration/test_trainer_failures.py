"""Training that fails, is damaged, or is scored beside: real runs in one session, each tiny."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from cluster.config import ClusterConfig, ValidationConfig
from cluster.runs.record import VALIDATION_LOSS, load_record
from cluster.tracking.client import connect
from cluster.training.trainer import fit
from shards.manifest import load_manifest
from tests.support.short_runs import NUM_STEPS, short_run

CIDER_D = "validation_cider_d"

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


@pytest.fixture(scope="module")
def run(drawn_shards, home):
    return short_run(drawn_shards, home.home, name="r", cluster=ClusterConfig(num_workers=1))


@pytest.fixture(scope="module")
def outcome(run, session):
    return fit(run)


@pytest.fixture(scope="module")
def spoiled_shards(drawn_shards, tmp_path_factory):
    """Return a shard set, whole by its manifest, in which one training image is no image; and the image's key."""
    folder = tmp_path_factory.mktemp("spoiled") / "shards"
    shutil.copytree(drawn_shards, folder)
    manifest = load_manifest(folder)
    record = next(shard for shard in manifest.shards if shard.name == "train-000000.tar")
    content = bytearray((folder / record.name).read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 9] = b"?" * 9
    (folder / record.name).write_bytes(content)
    altered = replace(record, sha256=hashlib.sha256(content).hexdigest())
    replace(manifest, shards=tuple(altered if one == record else one for one in manifest.shards)).save(folder)
    return folder, content[start - 512 : start].partition(b".jpg")[0].decode()


def weights(outcome):
    return load_file(outcome.best_checkpoint / "model.safetensors")


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def stopped(run, session, spoiled_shards):
    """Return the message by which a run over a bad sample ends."""
    with pytest.raises(RuntimeError, match="training failed") as failure:
        fit(replace(run, name="spoiled", shards=spoiled_shards[0]))
    return str(failure.value)


def test_a_bad_sample_ends_the_run_by_key_and_shard(stopped, spoiled_shards):
    assert f"1 bad sample, {spoiled_shards[1]} of train-000000.tar (the image does not decode" in stopped


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


def test_the_same_run_goes_on_without_the_bad_sample(stopped, run, spoiled_shards):
    training = replace(run.training, on_bad_sample="skip")
    outcome = fit(replace(run, name="spoiled", shards=spoiled_shards[0], training=training))
    assert outcome.step == NUM_STEPS


def test_a_crash_that_comes_back_ends_the_run_soon(run, session):
    crashing = replace(run, name="crashing", storage=replace(run.storage, ledger=True))
    crashing.folder.mkdir(parents=True)
    (crashing.folder / "ledger").write_text("a file where the ledger's folder should be")
    with pytest.raises(
        RuntimeError, match=r"FileExistsError(.|\n)*the same failure occurred 2 times in a row at the same step"
    ):
        fit(crashing)
    assert load_record(crashing.folder).attempt == 2


@pytest.mark.parametrize("names", [["model.safetensors", "optimizer.pt"], ["checkpoint.json"]], ids=" and ".join)
def test_damaged_checkpoints_give_way_to_the_one_before_them(run, outcome, names):
    again = replace(run, name=f"damaged-{names[0][:5]}")
    shutil.copytree(run.folder, again.folder)
    record = replace(load_record(run.folder), is_finished=False)
    record.save(again.folder)
    latest_first = sorted(record.checkpoints, key=lambda checkpoint: -checkpoint.step)
    for name, checkpoint in zip(names, latest_first, strict=False):
        damaged = again.folder / "checkpoints" / checkpoint.name / name
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
    assert same(weights(fit(again)), weights(outcome))


def test_a_checkpoint_is_scored_beside_training(run, session):
    beside = replace(run, name="beside", validation=ValidationConfig(where="beside", best_by=CIDER_D, beam_size=1))
    outcome = fit(beside)
    latest = load_record(beside.folder).latest
    history = connect(run.tracking, run.storage).get_metric_history(outcome.mlflow_run_id, CIDER_D)
    steps = [metric.step for metric in history]
    assert (set(latest.metrics) >= {CIDER_D, VALIDATION_LOSS}, steps[-1], len(steps)) == (
        True, NUM_STEPS, len(set(steps)),
    )  # fmt: skip


def test_the_score_beside_is_that_of_the_workers(run, outcome, session):
    beside = load_record(run.folder.parent / "beside").latest.metrics[VALIDATION_LOSS]
    assert beside == pytest.approx(load_record(run.folder).latest.metrics[VALIDATION_LOSS], abs=1e-5)


def test_a_run_goes_on_from_checkpoints_elsewhere_when_its_machine_is_lost(run, session, outcome, tmp_path):
    away = replace(run, name="away", storage=replace(run.storage, checkpoints=(tmp_path / "bucket").as_uri()))
    first = fit(away)
    shutil.rmtree(away.folder)
    assert (same(weights(first), weights(outcome)), fit(away).step) == (True, NUM_STEPS)
