"""Kill parts of a training run for real; the end must be that of a run that nobody disturbed."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from cluster.config import StorageConfig, TrackingConfig
from cluster.tracking.client import connect

CONSOLE_SCRIPT = Path(sys.executable).with_name("captioning")
NUM_STEPS = 80
SETTINGS = {
    "model.backbone": "squeezenet1_1",
    "model.weights": "none",
    "model.trainable-from": "features.12",
    "model.image-size-px": 64,
    "model.embedding-size": 16,
    "model.hidden-size": 16,
    "model.dropout": 0.3,
    "optimizer.warmup-steps": 5,
    "training.num-epochs": 10,
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


def wait_for_checkpoint(process, folder, *, attempt, seconds=180):
    """Look until a checkpoint of an attempt counts, and no more than the run has steps; return the run's record."""
    deadline = time.monotonic() + seconds
    while attempt not in [checkpoint["attempt"] for checkpoint in record_of(folder)["checkpoints"]]:
        assert process.poll() is None, f"it ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline, f"no checkpoint of attempt {attempt} within {seconds} s"
        time.sleep(0.01)
    return record_of(folder)


def record_of(folder):
    return json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {"checkpoints": []}


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
def disturbed(start, home):
    """Return what is known of a run whose worker was killed, then its driver told to end, then its driver killed."""
    folder = home / "training" / "disturbed"
    process = start("disturbed")
    wait_for_checkpoint(process, folder, attempt=1)
    training_workers(process)[-1].send_signal(signal.SIGKILL)
    with_killed_worker = wait_for_checkpoint(process, folder, attempt=2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    stopped = record_of(folder)
    stop = (process.returncode, stopped, *tracked(stopped, home))
    process = start("disturbed")
    wait_for_checkpoint(process, folder, attempt=3)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # At once: workers take some more steps before they notice, and what they commit counts.
    before = record_of(folder)
    psutil.wait_procs(family, timeout=180)  # agents of Ray notice after a minute
    left = [member for member in family if member.is_running()]
    return SimpleNamespace(
        with_killed_worker=with_killed_worker, stop=stop, before=before, left=left, outcome=finish(start("disturbed"))
    )


def test_a_killed_worker_does_not_fail_the_run(disturbed):
    assert disturbed.with_killed_worker["attempt"] == 2


def test_a_driver_that_is_told_to_end_marks_the_run_and_saves_its_last_step(disturbed):
    code, record, status, steps = disturbed.stop
    latest = record["checkpoints"][-1]["step"]
    assert (code, status, latest < NUM_STEPS, steps) == (143, "KILLED", True, Counter(range(1, latest + 1)))


def test_a_killed_driver_was_killed_before_the_end(disturbed):
    assert max(checkpoint["step"] for checkpoint in disturbed.before["checkpoints"]) < NUM_STEPS


def test_a_killed_driver_leaves_no_process(disturbed):
    assert disturbed.left == []


def test_the_same_command_continues_the_same_mlflow_run(disturbed):
    run_ids = {record["mlflow_run_id"] for record in (disturbed.stop[1], disturbed.before, disturbed.outcome)}
    assert (len(run_ids), disturbed.outcome["step"]) == (1, NUM_STEPS)


def test_a_killed_worker_and_a_stopped_and_a_killed_driver_change_no_bit_of_the_weights(disturbed, undisturbed):
    assert weights_differ(disturbed.outcome, undisturbed) == []


def test_after_all_of_it_the_tracker_has_every_step_once(disturbed, home):
    assert tracked(disturbed.outcome, home) == ("FINISHED", Counter(range(1, NUM_STEPS + 1)))
