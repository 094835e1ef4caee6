"""Depth of the call stack at ``loss.backward()``: a traceback should show few frames of this project."""

import sys
import threading
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from cluster.config import ClusterConfig, TrainRun
from cluster.coordination.local import LocalCoordinator
from cluster.coordination.messages import WorkerConfig
from cluster.runs.record import RunRecord
from cluster.training import driver, trainer
from cluster.training.driver import TrainThread
from cluster.worker import worker
from jobs.cli import call
from tests.support.short_runs import short_run

OURS = ("captioning.", "cluster.", "jobs.", "shards.")
MOST_FRAMES = 9


def our_frames():
    """Return this project's functions on the stack of this thread, outermost first, from a job's ``main`` on."""
    frame, found = sys._getframe(1), []
    while frame:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(OURS) and name != "jobs.cli":
            found.insert(0, frame.f_code.co_name)
        frame = frame.f_back
    return found


class Client(LocalCoordinator):
    """A local coordinator that replaces a worker's client of the coordinator."""

    def __init__(self, actor, rank, *, batch_size):
        super().__init__(actor, keep_best=1, keep_last=1)


@pytest.fixture(scope="module")
def of_rank(drawn_shards, tmp_path_factory):
    """Return the frames of a rank's process at the last ``backward``."""
    run = short_run(drawn_shards, tmp_path_factory.mktemp("home"), name="r", cluster=ClusterConfig(num_workers=1))
    run = replace(run, training=replace(run.training, num_epochs=0.2))
    run.folder.mkdir(parents=True)
    RunRecord(name="r", identity={}).save(run.folder)
    config = WorkerConfig(run=run, coordinator=run.folder, config_text="", lineage={})
    seen, backward = [], torch.Tensor.backward

    def look(tensor, *arguments, **options):
        seen.append(our_frames())
        return backward(tensor, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", look)
        patch.setattr(worker, "CoordinatorClient", Client)
        patch.setattr(worker, "_rank_context", worker.RankContext)
        patch.setattr(
            worker.ray.train, "get_context", lambda: type("Context", (), {"get_world_rank": lambda self: 0})()
        )
        worker.train_worker({"config": config})
    return seen[-1]


@pytest.fixture(scope="module")
def of_driver(drawn_shards, tmp_path_factory):
    """Return the frames of the driver's main thread where it starts Ray Train, and those of Ray Train's thread."""
    run = short_run(drawn_shards, tmp_path_factory.mktemp("home"), name="r")
    seen = {}

    class Trainer:
        def fit(self):
            seen["thread"] = our_frames()

    def start(thread):
        seen["main"] = our_frames()
        threading.Thread.start(thread)
        thread.join()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainThread, "start", start)
        patch.setattr(trainer, "build_trainer", lambda config, start: Trainer())
        patch.setattr(trainer, "cluster_session", lambda cluster: nullcontext())
        patch.setattr(trainer, "start_record", lambda *_: RunRecord(name="r", identity={}))
        for name in ("prepare_start", "start_coordinator", "require", "check_job", "mark_killed"):
            patch.setattr(trainer, name, lambda *_, **__: None)
        patch.setattr(driver.leftovers, "remove_leftovers", lambda: None)
        for name in ("_finish", "_end_train", "_end_coordinator"):
            patch.setattr(driver.Driver, name, lambda *_: False)
        with pytest.raises(KeyboardInterrupt):
            call("train", flags_of(run))
    return seen["main"] + seen["thread"]


def flags_of(run: TrainRun) -> list[str]:
    """Return the command line of a run that differs from the defaults in what it reads and writes."""
    return ["--shards", str(run.shards), "--home", str(run.storage.home), "--name", run.name, "--model.weights", "none"]


def test_a_rank_reaches_backward_by_its_loop_and_the_loop_of_steps(of_rank):
    assert of_rank == ["train_worker", "train", "train", "compute"]


def test_the_driver_reaches_ray_train_by_fit_and_its_own_loop(of_driver):
    assert of_driver == ["main", "fit", "train", "run"]


def test_few_frames_stand_between_the_command_and_backward(of_driver, of_rank):
    assert len(of_driver) + len(of_rank) <= MOST_FRAMES
