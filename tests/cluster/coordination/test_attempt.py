import time

import pytest

from cluster.coordination.attempt import CurrentAttempt
from cluster.coordination.messages import (
    ControllerLost,
    ControllerStarted,
    CoordinatorSettings,
    StartFailed,
    WorkerError,
    WorkerInfo,
    WorkersFailed,
    WorkersStarted,
    WorkersStarting,
)
from cluster.coordination.restart_policy import Failure
from tests.support.clock import eventually

WORKER = WorkerInfo(rank=0, node_id="n", host="host", pid=4194305, log="")


class Followed:
    """An attempt, with the lines it logged, the workers it killed and the controllers it ended."""

    def __init__(self, **settings):
        self.events, self.killed, self.ended = [], [], []
        self.attempt = CurrentAttempt(
            CoordinatorSettings(tracking_uri="", batch_size=8, **settings),
            log_event=self.events.append,
            kill=self.killed.extend,
            end_controller=self.ended.append,
        )


@pytest.fixture
def follow():
    """Return a function that makes an attempt, which is closed after the test."""
    made = []

    def follow(**settings):
        made.append(Followed(**settings))
        return made[-1]

    yield follow
    for one in made:
        one.attempt.close()


def test_failures_are_told_to_people(follow):
    followed = follow()
    followed.attempt.begin(0, [])
    followed.attempt.fail(Failure(1, 4, 32, "ValueError: bad"))
    assert followed.events == ["rank 1 failed at step 4: ValueError: bad"]


def test_a_rank_that_is_gone_is_told_with_the_last_step(follow):
    followed = follow()
    followed.attempt.begin(4, [])
    followed.attempt.notify(WorkersFailed({1: WorkerError("the actor is dead", True)}))
    assert (followed.events, followed.attempt.is_training) == (
        ["rank 1 was lost after step 4: the actor is dead"],
        False,
    )


def test_a_rank_that_told_how_it_failed_is_not_told_of_again(follow):
    followed = follow()
    followed.attempt.begin(0, [])
    followed.attempt.fail(Failure(1, 4, 32, "ValueError: bad"))
    followed.attempt.notify(WorkersFailed({1: WorkerError("ValueError: bad", False)}))
    assert followed.events == ["rank 1 failed at step 4: ValueError: bad"]


def test_what_comes_after_the_end_of_an_attempt_is_not_told(follow):
    followed = follow()
    followed.attempt.begin(0, [])
    followed.attempt.notify(WorkersFailed({1: WorkerError("gone", True)}))
    told = list(followed.events)
    followed.attempt.fail(Failure(0, 4, 32, "ValueError: bad"))
    followed.attempt.notify(WorkersFailed({0: WorkerError("gone", True)}))
    followed.attempt.notify(StartFailed("segmentation fault"))
    assert followed.events == told


def test_the_same_failure_at_the_same_step_ends_the_run(follow):
    attempt = follow().attempt
    for _ in range(2):
        attempt.begin(0, [])
        attempt.fail(Failure(0, 4, 32, "KeyError: 'x'"))
        attempt.notify(WorkersFailed({1: WorkerError("gone", True)}))
    assert "2 times in a row at the same step" in attempt.final_failure.why


def test_ranks_that_fail_before_they_begin_end_the_run_too(follow):
    attempt = follow().attempt
    for _ in range(2):
        attempt.notify(WorkersStarting(2, None))
        attempt.fail(Failure(0, 0, 0, "ImportError: no module"))
        attempt.notify(WorkersFailed({0: WorkerError("ImportError", False)}))
    assert attempt.final_failure.cause.reason == "ImportError: no module"


def test_groups_that_fail_to_start_use_up_the_budget(follow):
    attempt = follow(max_restarts=1).attempt
    for _ in range(2):
        attempt.notify(WorkersStarting(2, None))
        attempt.notify(StartFailed("segmentation fault"))
    assert "training failed 2 times" in attempt.final_failure.why


def test_a_preemption_is_no_crash(follow):
    attempt = follow(max_restarts=0).attempt
    for _ in range(3):
        attempt.begin(0, [])
        attempt.set_ending("preemption")
        attempt.notify(WorkersFailed({0: WorkerError("Preempted", False), 1: WorkerError("Preempted", False)}))
    assert attempt.final_failure is None


def test_a_rank_that_hangs_before_it_begins_is_told_and_its_group_killed(follow):
    followed = follow(hang_seconds=0.1)
    followed.attempt.notify(WorkersStarting(1, None))
    followed.attempt.notify(WorkersStarted((WORKER,)))
    eventually(lambda: followed.killed)
    assert any("the start of the workers hangs: rank 0" in event for event in followed.events)


def test_the_next_group_is_not_judged_by_the_one_before(follow):
    followed = follow(hang_seconds=0.1)
    followed.attempt.notify(WorkersStarting(1, None))
    followed.attempt.notify(WorkersStarted((WORKER,)))
    followed.attempt.notify(WorkersStarting(1, None))
    time.sleep(0.3)
    assert followed.killed == []


def test_ranks_that_have_stopped_do_not_hang(follow):
    followed = follow(hang_seconds=0.1)
    followed.attempt.begin(0, [WORKER])
    followed.attempt.note_stopped()
    time.sleep(0.3)
    assert followed.killed == []


def test_workers_that_hang_before_they_are_known_are_told_alike_and_end_the_controller(follow):
    followed = follow(start_seconds=0.1, max_restarts=0)
    followed.attempt.notify(WorkersStarting(2, "controller"))
    eventually(lambda: followed.ended == ["controller"])
    followed.attempt.notify(ControllerLost("Ray Train ended: ActorDiedError"))
    assert followed.events[1].startswith("the start of the workers hangs: the workers did not start within ")
    assert "did not start within" in followed.attempt.final_failure.cause.reason


def test_a_controller_is_not_ended_once_the_workers_are_known(follow):
    followed = follow(start_seconds=0.1)
    followed.attempt.notify(WorkersStarting(2, "controller"))
    followed.attempt.notify(WorkersStarted((WORKER,)))
    followed.attempt._end_late_start(9.0)  # its clock ran out at the same moment
    assert (followed.events, followed.ended) == (["starting 2 workers"], [])


def test_workers_that_fail_between_their_start_and_their_training_use_up_the_budget(follow):
    attempt = follow(max_restarts=0).attempt
    attempt.notify(WorkersStarting(2, None))
    attempt.notify(WorkersStarted((WORKER,)))
    attempt.notify(StartFailed("segmentation fault"))
    assert "training failed once" in attempt.final_failure.why


def test_a_controller_is_known_once_it_has_started(follow):
    attempt = follow().attempt
    attempt.notify(ControllerStarted("controller"))
    assert attempt.controller == "controller"


def test_a_group_of_which_nothing_is_heard_is_given_up_only_with_a_controller(follow):
    followed = follow(start_seconds=0.1)
    followed.attempt.notify(WorkersStarting(2, None))
    time.sleep(0.3)
    assert (followed.events, followed.ended) == (["starting 2 workers"], [])


def test_no_checkpoint_may_come_once_no_group_trains(follow):
    attempt = follow().attempt
    attempt.begin(0, [WORKER])
    may_save = attempt.may_save()
    attempt.notify(ControllerLost("the controller died"))
    assert (may_save, attempt.may_save()) == (True, False)
