"""Extraction by actors on an embedded cluster: the same bytes, whatever is killed; and a run on what they made."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from captioning.config import TrainingConfig
from cluster.config import StorageConfig, TrainRun
from cluster.data import extraction_pool
from cluster.data.conversion import convert, plan_conversion
from cluster.data.extraction import extract
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import evaluate_split
from cluster.runs.record import load_record
from cluster.training.trainer import fit
from shards.images import ImageSpec
from shards.synthetic.scenes import write_scenes
from tests.support.feature_sets import ENCODER, SEED, content, damage, extracted, plan

pytestmark = pytest.mark.cluster
CONSOLE_SCRIPT = Path(sys.executable).with_name("captioning")
FLAGS = ("--model.backbone", ENCODER.backbone, "--model.weights", "none", "--model.image-size-px", "64")


@pytest.fixture(scope="module")
def folder(drawn_shards, tmp_path_factory):
    """Return a feature set made without Ray."""
    return extracted(drawn_shards, tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    """Return a shard set of sixty shards."""
    root = tmp_path_factory.mktemp("many")
    write_scenes(root / "scenes", num_train=590, num_val=10, seed=1, size_px=64)
    spec = ImageSpec()
    convert(
        plan_conversion(
            root / "scenes", root / "shards", spec=spec, samples_per_shard=10, seed=0, minimum_word_count=1
        ),
        num_workers=0,
    )
    return root / "shards"


def actors(form="ray::_Worker"):
    """Return the processes of this process's actors whose title begins so."""
    family = psutil.Process().children(recursive=True)
    return [one for one in family if "".join(command_of(one)[:1]).startswith(form)]


def command_of(process):
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def test_the_bytes_do_not_depend_on_the_number_of_actors(session, drawn_shards, tmp_path):
    for num_workers in (1, 2):
        extract(plan(drawn_shards, tmp_path / str(num_workers)), num_workers=num_workers)
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_a_lost_actor_costs_its_shard_alone(session, many_shards, tmp_path):
    killed, counts = [], []

    def progress(count):
        counts.append(count)
        if not killed and count and (found := actors("ray::_Worker.write")):
            found[0].kill()
            killed.append(found[0].pid)

    manifest = extract(plan(many_shards, tmp_path / "disturbed"), num_workers=2, progress=progress)
    assert (len(killed), manifest.splits, counts[-1]) == (1, {"train": 590, "val": 10}, 600)
    extract(plan(many_shards, tmp_path / "quiet"), num_workers=2)
    assert content(tmp_path / "disturbed") == content(tmp_path / "quiet")


def test_actors_that_die_again_and_again_end_it(session, drawn_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction_pool, "_MAX_LOST_IN_A_ROW", 2)
    is_over = threading.Event()

    def kill_all():
        while not is_over.wait(0.02):
            for one in actors():
                one.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(RuntimeError, match=r"2 actors were lost one after another, .* run the same command again"):
            extract(plan(drawn_shards, tmp_path), num_workers=1)
    finally:
        is_over.set()
        killer.join()


def test_a_bad_image_is_told_in_one_line(session, drawn_shards, tmp_path):
    shards = shutil.copytree(drawn_shards, tmp_path / "shards")
    key = ShardSet(shards).reader("val").read(0).key
    damage(shards / "val-000000.tar", key)
    with pytest.raises(ValueError, match=rf"^sample {key} of .*val-000000.tar: the image does not decode"):
        extract(plan(shards, tmp_path / "out"), num_workers=2)


def test_weights_that_do_not_fit_are_told_in_one_line(session, drawn_shards, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    wrong = plan(drawn_shards, tmp_path / "out", model=replace(ENCODER, weights=str(tmp_path / "w.pth")))
    with pytest.raises(ValueError, match=r"w.pth holds no weights that load safely"):
        extract(wrong, num_workers=1)


def test_a_cluster_without_room_is_refused(session, drawn_shards, tmp_path):
    with pytest.raises(ValueError, match=r"1 workers of 99 CPU do not fit: .*; use less for each worker, or a"):
        extract(plan(drawn_shards, tmp_path), num_workers=2, cpus_per_worker=99)


@pytest.mark.faults
def test_a_killed_extraction_is_finished_by_the_same_command(many_shards, tmp_path):
    killed, whole = (
        [CONSOLE_SCRIPT, "extract", many_shards, tmp_path / name, *FLAGS, "--num-workers", "0", "--json"]
        for name in ("killed", "whole")
    )
    process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list((tmp_path / "killed" / "records").glob("*.json"))) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    was_finished = (tmp_path / "killed" / "features.json").exists()
    answers = [subprocess.run(one, check=True, capture_output=True).stdout for one in (killed, whole)]
    found = [json.loads(answer)["splits"] for answer in answers]
    assert (was_finished, found) == (False, [{"train": 590, "val": 10}] * 2)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def wait_for(condition, process, *, seconds=120):
    """Look until the condition holds; fail if the process ends or time is up."""
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
            storage=StorageConfig(home=tmp_path_factory.mktemp("home")),
        )
    )


def test_a_run_on_features_leaves_a_checkpoint_that_takes_images(outcome, drawn_shards):
    found = evaluate_split(
        outcome.best_checkpoint, ShardSet(drawn_shards), "val", step=outcome.step, beam_size=1, batch_size=8
    )
    assert (outcome.step, len(found.captions)) == (4, 30)


def test_identity_and_lineage_name_the_features(outcome, folder):
    digest = json.loads((folder / "features.json").read_text())["digest"]
    identity = load_record(outcome.best_checkpoint.parent.parent).identity
    lineage = json.loads((outcome.best_checkpoint / "checkpoint.json").read_text())["lineage"]
    assert (identity["data.features"], lineage["features_digest"]) == (digest, digest)
