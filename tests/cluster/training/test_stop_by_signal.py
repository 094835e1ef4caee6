"""What a driver waits for when a signal stops it, with a coordinator that answers without Ray."""

import logging
import os
import signal
import threading
from types import SimpleNamespace

import pytest

from cluster.config import TrainRun
from cluster.coordination.messages import RunProgress
from cluster.runs.record import CommittedCheckpoint
from cluster.training import driver
from cluster.training.driver import Driver

POLLS_TO_STOP = 10  # at least 0.05 s apart, so that the last one comes long after the deadline of a stop
CHECKPOINT = CommittedCheckpoint(step=7, attempt=1)


class Actor:
    """Stands in for Ray's handle of a coordinator; ``ray.get`` returns what a method returns.

    Args:
        may_save: whether a checkpoint can still come; if so, the ranks stop after some polls.
    """

    def __init__(self, *, may_save):
        self._may_save, self._num_polls = may_save, 0
        self.training = threading.Event()
        self.requested, self.status = [], ""
        for method in (self._progress, self._request, self._controller, self._finish):
            setattr(self, method.__name__.removeprefix("_"), SimpleNamespace(remote=method))

    @property
    def is_stopped(self):
        return self._may_save and self._num_polls >= POLLS_TO_STOP

    def _progress(self, num_events=0):
        self._num_polls += bool(self.requested)
        latest = CHECKPOINT if self.is_stopped else None
        return RunProgress(1, None, [], may_save=self._may_save, is_stopped=self.is_stopped, latest=latest)

    def _request(self, request):
        self.requested.append(request)

    def _controller(self):
        return SimpleNamespace(abort=SimpleNamespace(remote=self.training.set))

    def _finish(self, status):
        self.status = status
        return True


@pytest.fixture
def stopped(monkeypatch, caplog, log_lines):
    """Return a function that trains until a signal stops the driver: the coordinator, the error and the log lines."""
    caplog.set_level(logging.INFO, "cluster")
    ray = SimpleNamespace(get=lambda answer, timeout=None: answer, kill=lambda actor: None)
    monkeypatch.setattr(driver, "ray", ray)
    monkeypatch.setattr(driver.leftovers, "remove_leftovers", lambda: None)
    monkeypatch.setattr(driver, "_STOP_SECONDS", 0.1)

    def run(number, *, may_save):
        actor = Actor(may_save=may_save)

        def build(attempt):
            os.kill(os.getpid(), number)
            return SimpleNamespace(fit=actor.training.wait)

        with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
            Driver(TrainRun(name="r"), actor, num_steps=100).train(build)
        assert "captioning-fit" not in [thread.name for thread in threading.enumerate()]
        return actor, ended.value, log_lines()

    return run


def test_ctrl_c_waits_for_the_step_and_its_checkpoint(stopped):
    actor, error, lines = stopped(signal.SIGINT, may_save=True)
    assert (actor.requested, actor.is_stopped, actor.status) == (["stop"], True, "KILLED")
    assert lines == ["stopping after this step, with a checkpoint; press Ctrl-C again to quit at once"]
    assert isinstance(error, KeyboardInterrupt)
    assert str(error) == "stopped after step 7; run the same command again to resume"


def test_ctrl_c_does_not_wait_where_no_checkpoint_can_come(stopped):
    actor, error, lines = stopped(signal.SIGINT, may_save=False)
    assert (actor.status, lines) == ("KILLED", ["stopping; press Ctrl-C again to quit at once"])
    assert str(error).startswith("stopped before the first checkpoint")


def test_sigterm_has_a_deadline_even_if_a_checkpoint_could_come(stopped):
    actor, error, lines = stopped(signal.SIGTERM, may_save=True)
    assert (actor.is_stopped, actor.status, error.code) == (False, "KILLED", 128 + signal.SIGTERM)
    assert lines == ["stopped before the first checkpoint; run the same command again to resume"]
