"""The same command finishes a killed extraction, and a run trains on the result."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captioning.config import TrainingConfig
from captioning.generation.config import GenerationConfig
from cluster.config import ClusterConfig, StorageConfig, TrainRun
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import evaluate_split
from cluster.runs.record import load_record
from cluster.training.trainer import fit
from tests.support.command_line import captioning
from tests.support.feature_sets import ENCODER, SEED, content

pytestmark = pytest.mark.cluster
CONSOLE_SCRIPT = Path(sys.executable).with_name("captioning")
FLAGS = (
    "--model.backbone",
    ENCODER.backbone,
    "--model.weights",
    "none",
    "--model.image-size-px",
    f"{ENCODER.image_size_px}",
)


@pytest.fixture(scope="module")
def folder(drawn_features):
    """Return a feature set made without Ray."""
    return drawn_features


@pytest.mark.faults
def test_a_killed_extraction_is_finished_by_the_same_command(many_shards, tmp_path):
    flags = (*FLAGS, "--num-workers", "0", "--json")
    killed, whole = (["extract", many_shards, tmp_path / name, *flags] for name in ("killed", "whole"))
    process = subprocess.Popen([CONSOLE_SCRIPT, *killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list((tmp_path / "killed" / "records").glob("*.json"))) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    was_finished = (tmp_path / "killed" / "features.json").exists()
    found = [json.loads(captioning(*command).out)["splits"] for command in (killed, whole)]
    assert (was_finished, found) == (False, [{"train": 590, "val": 10}] * 2)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def wait_for(condition, process, *, seconds=120):
    """Wait until the condition is true; fail if the process ends or after a timeout."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline, f"it did not get there within {seconds} s"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def outcome(session, drawn_shards, folder, tmp_path_factory):
    return fit(
        TrainRun(
            name="featured",
            shards=drawn_shards,
            features=folder,
            model=ENCODER,
            training=TrainingConfig(num_epochs=1, batch_size=30, seed=SEED),
            cluster=ClusterConfig(num_workers=1),
            storage=StorageConfig(home=tmp_path_factory.mktemp("home")),
        )
    )


def test_a_run_on_features_leaves_a_checkpoint_that_takes_images(outcome, drawn_shards):
    found = evaluate_split(
        outcome.best_checkpoint,
        ShardSet(drawn_shards),
        "val",
        step=outcome.step,
        generation=GenerationConfig(beam_size=1),
        batch_size=8,
    )
    assert (outcome.step, len(found.captions)) == (4, 30)


def test_identity_and_lineage_name_the_features(outcome, folder):
    digest = json.loads((folder / "features.json").read_text())["digest"]
    identity = load_record(outcome.best_checkpoint.parent.parent).identity
    lineage = json.loads((outcome.best_checkpoint / "checkpoint.json").read_text())["lineage"]
    assert (identity["data.features"], lineage["features_digest"]) == (digest, digest)
