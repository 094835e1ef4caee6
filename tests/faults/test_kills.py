"""Kill parts of a training run for real; the end must be that of a run that nobody disturbed."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from cluster.config import StorageConfig, TrackingConfig
from cluster.tracking.client import connect

CONSOLE_SCRIPT = Path(sys.executable).with_name("captioning")
NUM_STEPS = 40
SETTINGS = {
    "model.backbone": "squeezenet1_1",
    "model.weights": "none",
    "model.trainable-from": "features.12",
    "model.image-size-px": 64,
    "model.embedding-size": 16,
    "model.hidden-size": 16,
    "model.dropout": 0.3,
    "optimizer.warmup-steps": 5,
    "training.num-epochs": 5,
    "training.batch-size": 15,
    "training.accumulation": 2,
    "training.checkpoint-every-steps": 10,
}

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def start(home, drawn_shards):
    """Return a function that starts ``captioning train`` under a name."""
    started = []

    def launch(name):
        flags = [text for key, value in SETTINGS.items() for text in (f"--{key}", str(value))]
        command = [CONSOLE_SCRIPT, "train", "--name", name, "--shards", drawn_shards, "--home", home, "--json", *flags]
        log = (home / f"{name}-{len(started)}.log").open("w+")
        started.append((subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True), log))
        return started[-1][0]

    yield launch
    for process, log in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        log.close()


@pytest.fixture(scope="module")
def undisturbed(start):
    return finish(start("undisturbed"))


def finish(process):
    """Return what a training command says at its end."""
    answer, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(answer)


def wait_for_checkpoint(process, home, name, *, seconds=180):
    """Look until the run has a checkpoint that counts, and no more than the run has steps."""
    record = home / "training" / name / "run.json"
    deadline = time.monotonic() + seconds
    while not (record.exists() and json.loads(record.read_text())["checkpoints"]):
        assert process.poll() is None, f"it ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline, f"no checkpoint within {seconds} s"
        time.sleep(0.01)


def training_workers(process):
    """Return the processes of the ranks that a driver has started."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def weights_differ(one, other):
    first, second = (load_file(Path(outcome["best_checkpoint"]) / "model.safetensors") for outcome in (one, other))
    return [name for name in first if not torch.equal(first[name], second[name])]


def tracked(outcome, home):
    """Return the status of the MLflow run, and how often each step's loss is in it."""
    client = connect(TrackingConfig(), StorageConfig(home=home))
    history = client.get_metric_history(outcome["mlflow_run_id"], "train_loss_nats")
    return client.get_run(outcome["mlflow_run_id"]).info.status, Counter(metric.step for metric in history)


@pytest.fixture(scope="module")
def survivor_of_a_killed_worker(start, home):
    process = start("worker-killed")
    wait_for_checkpoint(process, home, "worker-killed")
    training_workers(process)[-1].send_signal(signal.SIGKILL)
    return finish(process)


@pytest.fixture(scope="module")
def survivor_of_a_killed_driver(start, home):
    process = start("driver-killed")
    wait_for_checkpoint(process, home, "driver-killed")
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # At once: workers take some more steps before they notice, and what they commit counts.
    before = json.loads((home / "training" / "driver-killed" / "run.json").read_text())
    psutil.wait_procs(family, timeout=60)
    return finish(start("driver-killed")), before, [member for member in family if member.is_running()]


@pytest.fixture(scope="module")
def survivor_of_a_stopped_driver(start, home):
    """Return what a run says that was told to end and went on; and before, exit code, record and tracked status."""
    process = start("driver-stopped")
    wait_for_checkpoint(process, home, "driver-stopped")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    record = json.loads((home / "training" / "driver-stopped" / "run.json").read_text())
    status, steps = tracked(record, home)
    return finish(start("driver-stopped")), (process.returncode, record, status, steps)


def test_a_driver_that_is_told_to_end_marks_the_run_and_saves_its_last_step(survivor_of_a_stopped_driver):
    code, record, status, steps = survivor_of_a_stopped_driver[1]
    latest = record["checkpoints"][-1]["step"]
    assert (code, status, latest < NUM_STEPS, steps) == (143, "KILLED", True, Counter(range(1, latest + 1)))


def test_a_stopped_driver_changes_no_bit_of_the_weights(survivor_of_a_stopped_driver, undisturbed):
    assert weights_differ(survivor_of_a_stopped_driver[0], undisturbed) == []


def test_after_a_stopped_driver_the_tracker_has_every_step_once(survivor_of_a_stopped_driver, home):
    assert tracked(survivor_of_a_stopped_driver[0], home) == ("FINISHED", Counter(range(1, NUM_STEPS + 1)))


def test_a_killed_worker_does_not_fail_the_run(survivor_of_a_killed_worker, home):
    attempts = json.loads((home / "training" / "worker-killed" / "run.json").read_text())["attempt"]
    assert (survivor_of_a_killed_worker["step"], attempts) == (NUM_STEPS, 2)


def test_a_killed_worker_changes_no_bit_of_the_weights(survivor_of_a_killed_worker, undisturbed):
    assert weights_differ(survivor_of_a_killed_worker, undisturbed) == []


def test_after_a_killed_worker_the_tracker_has_every_step_once(survivor_of_a_killed_worker, home):
    assert tracked(survivor_of_a_killed_worker, home) == ("FINISHED", Counter(range(1, NUM_STEPS + 1)))


def test_a_killed_driver_was_killed_before_the_end(survivor_of_a_killed_driver):
    _, before, _ = survivor_of_a_killed_driver
    assert max(checkpoint["step"] for checkpoint in before["checkpoints"]) < NUM_STEPS


def test_a_killed_driver_leaves_no_process(survivor_of_a_killed_driver):
    assert survivor_of_a_killed_driver[2] == []


def test_the_same_command_continues_the_same_mlflow_run(survivor_of_a_killed_driver):
    outcome, before, _ = survivor_of_a_killed_driver
    assert (outcome["mlflow_run_id"], outcome["step"]) == (before["mlflow_run_id"], NUM_STEPS)


def test_a_killed_driver_changes_no_bit_of_the_weights(survivor_of_a_killed_driver, undisturbed):
    assert weights_differ(survivor_of_a_killed_driver[0], undisturbed) == []


def test_after_a_killed_driver_the_tracker_has_every_step_once(survivor_of_a_killed_driver, home):
    assert tracked(survivor_of_a_killed_driver[0], home) == ("FINISHED", Counter(range(1, NUM_STEPS + 1)))
