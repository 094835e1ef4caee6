import pytest

from cluster.coordination.coordinator import Coordinator
from cluster.coordination.messages import WorkerInfo, WorkersStarting
from cluster.coordination.restart_policy import Failure
from cluster.runs.record import load_record, lock_run
from tests.support.clock import eventually
from tests.support.coordinators import metrics, row, settings


@pytest.fixture
def coordinator(folder, home):
    made = Coordinator(folder, settings(home))
    yield made
    made.finish("FAILED")


def test_attempts_are_numbered_over_all_drivers(coordinator, folder):
    coordinator.begin_attempt()
    assert (coordinator.begin_attempt().number, load_record(folder).attempt) == (2, 2)


def test_an_attempt_resumes_from_the_latest_checkpoint_that_counts(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 5, metrics(1.0))
    assert coordinator.begin_attempt().checkpoint.step == 5


def test_progress_has_the_latest_scores_even_if_a_later_checkpoint_has_none(coordinator):
    attempt = coordinator.begin_attempt().number
    assert coordinator.progress().validated is None
    coordinator.commit(attempt, 5, metrics(1.0))
    coordinator.commit(attempt, 6, {})
    progress = coordinator.progress()
    assert (progress.latest.step, progress.validated.step, progress.validated.metrics) == (6, 5, metrics(1.0))


def test_checkpoints_in_quick_succession_are_logged_if_they_are_the_best_or_the_last(folder, home):
    coordinator = Coordinator(folder, settings(home), clock=lambda: 0.0)
    attempt = coordinator.begin_attempt().number
    for step, loss in ((1, 4.0), (2, 5.0), (3, 3.0), (4, 6.0), (5, 6.0)):
        coordinator.commit(attempt, step, metrics(loss))
    coordinator.end_training(attempt)
    events, checkpoint = coordinator.progress().events, "checkpoint at step "
    logged = [event.removeprefix(checkpoint).partition(":")[0] for event in events if event.startswith(checkpoint)]
    coordinator.finish("FINISHED")
    assert logged == ["1", "3", "5"]


def test_a_requested_checkpoint_is_logged_at_once(coordinator):
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 1, metrics(1.0))
    coordinator.request("checkpoint")
    coordinator.commit(attempt, 2, {})
    coordinator.commit(attempt, 3, {})
    assert coordinator.progress().events[1:] == ["checkpoint at step 2"]


def test_the_driver_learns_whether_a_checkpoint_can_come_and_which_is_the_best(coordinator):
    before = coordinator.progress()
    attempt = coordinator.begin_attempt().number
    for step, loss in ((1, 2.0), (2, 3.0)):
        coordinator.commit(attempt, step, metrics(loss))
    after = coordinator.progress()
    assert (before.may_save, before.best, after.may_save, after.best.step) == (False, None, True, 1)


def test_a_replaced_attempt_commits_nothing(coordinator, folder):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    with pytest.raises(PermissionError, match="attempt 1 was replaced by 2; its checkpoint is not committed"):
        coordinator.commit(old, 5, metrics(1.0))
    assert load_record(folder).checkpoints == ()


def test_self_critical_training_starts_from_the_best_checkpoint_which_is_recorded(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    for step, loss in ((1, 2.0), (2, 3.0)):
        coordinator.commit(attempt, step, metrics(loss))
    best = coordinator.begin_self_critical(attempt, [row(3)])
    assert (best.step, load_record(folder).self_critical_from, coordinator.progress().row.step) == (1, 1, 3)
    assert coordinator.progress().events[-1] == "self-critical training starts from the checkpoint at step 1"


def test_a_replaced_attempt_does_not_become_self_critical(coordinator, folder):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    with pytest.raises(PermissionError, match="attempt 1 was replaced by 2"):
        coordinator.begin_self_critical(old)
    assert load_record(folder).self_critical_from is None


def test_without_a_checkpoint_nothing_becomes_self_critical(coordinator):
    attempt = coordinator.begin_attempt().number
    with pytest.raises(FileNotFoundError, match="has no checkpoint to start self-critical training from"):
        coordinator.begin_self_critical(attempt)


def test_a_replaced_attempt_journals_nothing(coordinator, folder):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    coordinator.heartbeat(old, 0, 1, [row(1)])
    assert coordinator.progress().row is None


def test_steps_that_are_computed_again_are_counted(coordinator):
    for _ in range(2):
        attempt = coordinator.begin_attempt().number
        coordinator.heartbeat(attempt, 0, 1, [row(1), row(2)])
    assert coordinator.progress().num_steps_redone == 2


def test_a_replaced_rank_is_requested_to_exit(coordinator):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    assert coordinator.heartbeat(old, 0, 1).request == "exit"


def test_a_request_has_a_number_of_its_own(coordinator):
    attempt = coordinator.begin_attempt().number
    before = coordinator.heartbeat(attempt, 0, 1)
    coordinator.request("stop")
    assert (before, coordinator.heartbeat(attempt, 0, 2)) == (("none", 0), ("stop", 1))


def test_a_failure_that_all_ranks_share_ends_the_run_at_once(coordinator):
    attempt = coordinator.begin_attempt().number
    coordinator.report_failure(attempt, Failure(0, 4, 32, "FloatingPointError: nan", is_agreed=True))
    assert coordinator.progress().final_failure.why == "every worker failed with the same error"


def test_after_a_final_failure_no_attempt_begins(coordinator):
    attempt = coordinator.begin_attempt().number
    coordinator.report_failure(attempt, Failure(0, 4, 32, "FloatingPointError: nan", is_agreed=True))
    with pytest.raises(PermissionError, match="the run is over; there is no further attempt"):
        coordinator.begin_attempt()


def test_a_resize_requests_a_checkpoint_and_may_begin_after_it(coordinator):
    attempt = coordinator.begin_attempt().number
    before = coordinator.request_resize(3)
    requested, was_ready = coordinator.heartbeat(attempt, 0, 1).request, coordinator.may_resize(before)
    coordinator.commit(attempt, 4, {})
    assert (requested, was_ready, coordinator.may_resize(before)) == ("checkpoint", False, True)


def test_there_is_nothing_to_save_before_the_first_group(coordinator):
    assert coordinator.request_resize(3) is None


def test_a_run_scored_beside_training_stops_once_the_score_no_longer_improves(folder, home, client):
    coordinator = Coordinator(folder, settings(home, keep_last=3, stop_after=1))
    attempt = coordinator.begin_attempt().number
    for step in (4, 8, 12):
        coordinator.commit(attempt, step, {}, awaits_score=True)
    coordinator.add_score(4, metrics(0.5))
    before = coordinator.heartbeat(attempt, 0, 1).request
    coordinator.add_score(8, metrics(0.5))
    coordinator.add_score(12, metrics(0.4))  # of a checkpoint that was written before the ranks heard of it
    after, progress = coordinator.heartbeat(attempt, 0, 2).request, coordinator.progress()
    coordinator.finish("FINISHED")
    reason = "validation loss not better than 0.500 of step 4 in 1 validation"
    assert (before, after, progress.stopped_early, progress.best.step) == ("none", "stop", reason, 12)
    assert f"stopping early: {reason}" in progress.events
    assert client.get_run(load_record(folder).mlflow_run_id).data.tags["stopped_early"] == reason
    assert load_record(folder).history.scores == ((4, 0.5), (8, 0.5))


def test_a_rank_that_hangs_is_told_and_its_group_killed(folder, home):
    killed = []
    coordinator = Coordinator(folder, settings(home, hang_seconds=0.1), kill=killed.extend)
    worker = WorkerInfo(1, "n", "host", 2**22 + 1, "")
    coordinator.begin_attempt([worker])
    eventually(lambda: killed == [worker])
    events = coordinator.progress().events
    coordinator.finish("FAILED")
    assert any("the workers hang: rank 1 (process 4194305 on host) made no progress" in event for event in events)


def test_a_group_that_does_not_start_ends_the_controller(folder, home):
    ended = []
    given = settings(home, start_seconds=0.1)
    coordinator = Coordinator(folder, given, end_controller=ended.append)
    coordinator.notify(WorkersStarting(2, "controller"))
    eventually(lambda: ended == ["controller"])
    coordinator.finish("FAILED")


def test_a_run_has_one_live_driver(coordinator, folder):
    with pytest.raises(BlockingIOError, match=r"has a live driver already, process \d+ on .*; wait for it, or stop it"):
        lock_run(folder)
