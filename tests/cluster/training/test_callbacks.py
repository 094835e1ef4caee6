"""Events that the callbacks of Ray Train send to a coordinator, from arguments as Ray passes them."""

import logging
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import RayError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerHealthCheckFailedError

from cluster.coordination.messages import (
    ControllerStarted,
    StartFailed,
    WorkerError,
    WorkerInfo,
    WorkersFailed,
    WorkersStarted,
    WorkersStarting,
)
from cluster.training import callbacks
from cluster.training.callbacks import FailureCallback, WorkerGroupNotifier


class Handle:
    """A fake handle of the coordinator: keeps the events, and returns prepared answers."""

    def __init__(self, **answers):
        self.events = []
        self.notify = SimpleNamespace(remote=self.events.append)
        for name, given in answers.items():
            setattr(self, name, SimpleNamespace(remote=lambda *_, given=given: next(given)))


@pytest.fixture
def local(monkeypatch):
    """Replace Ray's functions, so that they work in this process without a cluster."""
    monkeypatch.setattr(callbacks.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(current_actor="controller"))


def test_ranks_that_failed_are_told_apart_from_those_that_are_gone():
    handle = Handle()
    FailureCallback(handle).after_exception(
        None, {0: ValueError("bad"), 1: WorkerHealthCheckFailedError("gone", RuntimeError("killed"))}
    )
    (event,) = handle.events
    assert isinstance(event, WorkersFailed)
    assert (event.errors[0], event.errors[1].is_death) == (WorkerError("bad", False), True)


def test_the_controller_and_a_group_that_starts_are_notified(local):
    handle = Handle()
    notifier = WorkerGroupNotifier(handle, resize_wait_seconds=1.0)
    notifier.after_controller_start(None)
    notifier.on_controller_start_worker_group(scaling_config=None, num_workers=2)
    assert handle.events == [ControllerStarted("controller"), WorkersStarting(2, "controller")]


def test_workers_are_known_by_where_ray_started_them():
    handle = Handle()
    worker = SimpleNamespace(
        distributed_context=SimpleNamespace(world_rank=1),
        metadata=SimpleNamespace(node_id="n", hostname="host", pid=7),
        actor="actor",
    )
    assert WorkerGroupNotifier(handle, resize_wait_seconds=1.0).before_init_train_context([worker]) == {}
    assert handle.events == [WorkersStarted((WorkerInfo(1, "n", "host", 7, "", "actor"),))]


def test_a_group_whose_processes_do_not_start_is_notified():
    handle = Handle()
    failed = SimpleNamespace(controller_failure=WorkerGroupStartupFailedError("segmentation fault"))
    notifier = WorkerGroupNotifier(handle, resize_wait_seconds=1.0)
    notifier.after_controller_state_update(None, SimpleNamespace(training_failed_error=failed))
    notifier.after_controller_state_update(None, SimpleNamespace())
    assert handle.events == [StartFailed("segmentation fault")]


def test_a_resize_waits_until_a_checkpoint_counts(local):
    left = iter([False, False, True, "asked too often"])
    handle = Handle(request_resize=iter([4]), may_resize=left)
    WorkerGroupNotifier(handle, resize_wait_seconds=60.0).before_controller_execute_resize_decision(
        SimpleNamespace(num_workers=3)
    )
    assert list(left) == ["asked too often"]


def test_a_resize_does_not_wait_for_a_coordinator_that_is_gone(local, monkeypatch, caplog):
    def gone(answer, timeout):
        raise RayError("the actor died")

    monkeypatch.setattr(ray, "get", gone)
    caplog.set_level(logging.WARNING, "cluster")
    handle = Handle(request_resize=iter([4]))
    WorkerGroupNotifier(handle, resize_wait_seconds=60.0).before_controller_execute_resize_decision(
        SimpleNamespace(num_workers=3)
    )
    assert "no checkpoint before the resize: the actor died" in caplog.text
