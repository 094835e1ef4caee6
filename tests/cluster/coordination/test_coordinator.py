import threading
import time
import uuid

import pytest

from cluster.config import TrackingConfig
from cluster.coordination.coordinator import Coordinator
from cluster.coordination.messages import CoordinatorSettings, WorkerInfo, WorkersStarting
from cluster.coordination.restart_policy import Failure
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import Claim
from cluster.runs.journal import Journal, Row, unshipped
from cluster.runs.record import RunRecord, load_record, lock_run
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.tracking import shipping
from cluster.tracking.client import create_run, tracking_uri
from cluster.tracking.experiment import experiment_id


@pytest.fixture(scope="module")
def storage(home):
    return home


@pytest.fixture
def folder(tmp_path, client, storage):
    """Return the folder of a run that has just started."""
    experiment = experiment_id(client, TrackingConfig(), storage)
    run_id = create_run(client, experiment, key=uuid.uuid4().hex, name="r", parameters={}, tags={})
    RunRecord(name="r", identity={}, mlflow_run_id=run_id, num_starts=1).save(tmp_path)
    return tmp_path


@pytest.fixture
def coordinator(folder, storage):
    made = Coordinator(folder, settings(storage))
    yield made
    made.finish("FAILED")


def settings(storage, **changes):
    uri = tracking_uri(TrackingConfig(), storage)
    return CoordinatorSettings(**{"tracking_uri": uri, "keep_best": 1, "keep_last": 1, "batch_size": 8, **changes})


def row(step, **metrics):
    return Row(step, 1000 + step, {"loss": 1.0, **metrics})


def eventually(condition, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def metrics(loss):
    return {VALIDATION_LOSS: loss}


def tracked_steps(client, folder):
    run_id = load_record(folder).mlflow_run_id
    return [metric.step for metric in client.get_metric_history(run_id, "loss")]


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


def test_checkpoints_in_quick_succession_are_logged_if_they_are_the_best_or_the_last(folder, storage):
    coordinator = Coordinator(folder, settings(storage), clock=lambda: 0.0)
    attempt = coordinator.begin_attempt().number
    for step, loss in ((1, 4.0), (2, 5.0), (3, 3.0), (4, 6.0), (5, 6.0)):
        coordinator.commit(attempt, step, metrics(loss))
    coordinator.end_training(attempt)
    events, checkpoint = coordinator.progress().events, "checkpoint at step "
    logged = [event.removeprefix(checkpoint).partition(":")[0] for event in events if event.startswith(checkpoint)]
    coordinator.finish("FINISHED")
    assert logged == ["1", "3", "5"]


def test_what_goes_wrong_is_logged_once_and_is_a_tag_of_the_run_until_it_passes(folder, storage, client):
    coordinator = Coordinator(folder, settings(storage))
    attempt = coordinator.begin_attempt().number
    for step, loss in ((1, 4.0), (2, 5.0), (3, 5.0), (4, 5.0)):
        coordinator.commit(attempt, step, metrics(loss), [row(step)])
    events = [event for event in coordinator.progress().events if "warning" in event]
    coordinator.finish("KILLED")
    told = "has a validation loss of 5.000 nats/word, 25% above its lowest since step 2"
    assert (events, load_record(folder).best.metrics) == ([f"warning: the model {told}"], metrics(4.0))
    run_id = load_record(folder).mlflow_run_id
    eventually(lambda: client.get_run(run_id).data.tags.get("health") == told)
    again = Coordinator(folder, settings(storage))
    again.commit(again.begin_attempt().number, 5, metrics(3.9))
    events = again.progress().events
    again.finish("FINISHED")
    assert (f"no longer so: the model {told}" in events, client.get_run(run_id).data.tags["health"]) == (True, "")


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


def test_the_journal_is_on_disk_before_a_checkpoint_counts(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    coordinator.heartbeat(attempt, 0, 1, [row(1)])
    coordinator.commit(attempt, 1, metrics(1.0))
    assert Journal(folder / "journal").last_step == 1


def test_a_finished_run_has_every_row_in_the_tracker(folder, storage, client):
    coordinator = Coordinator(folder, settings(storage))
    attempt = coordinator.begin_attempt().number
    for step in range(1, 4):
        coordinator.heartbeat(attempt, 0, step, [row(step)])
    assert coordinator.finish("FINISHED")
    status = client.get_run(load_record(folder).mlflow_run_id).info.status
    assert (tracked_steps(client, folder), status, load_record(folder).is_finished) == ([1, 2, 3], "FINISHED", True)


def test_steps_that_are_computed_again_are_tracked_once(folder, storage, client):
    for _ in range(2):
        coordinator = Coordinator(folder, settings(storage))
        attempt = coordinator.begin_attempt().number
        for step in range(1, 4):
            coordinator.heartbeat(attempt, 0, step, [row(step)])
        coordinator.finish("KILLED")
    assert tracked_steps(client, folder) == [1, 2, 3]


def test_a_tracker_that_is_down_loses_nothing_and_stops_nothing(folder, storage, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setitem(shipping._LAST_SECONDS, "FINISHED", 0.1)
    coordinator = Coordinator(folder, settings(storage, tracking_uri="http://127.0.0.1:9"))
    attempt = coordinator.begin_attempt().number
    coordinator.heartbeat(attempt, 0, 1, [row(1)])
    was_tracked = coordinator.finish("FINISHED")
    # A thread that still tries to reach the tracker would run on into other tests.
    eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("captioning-shipper")])
    kept = [row.step for _, rows in unshipped(folder / "journal") for row in rows]
    assert (was_tracked, kept, load_record(folder).is_finished) == (False, [1], True)


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


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(folder, storage):
    coordinator = Coordinator(folder, settings(storage, keep_last=2))
    first = coordinator.begin_attempt().number
    for step in (4, 8):
        coordinator.commit(first, step, metrics(1.0))
    attempt = coordinator.begin_attempt()
    again = coordinator.reject(attempt.number, attempt.checkpoint, "model.safetensors is altered")
    coordinator.finish("FAILED")
    assert (attempt.checkpoint.step, again.checkpoint.step, load_record(folder).latest.step) == (8, 4, 4)


def test_a_score_is_attached_to_its_step_and_tracked_once(folder, storage, client):
    coordinator = Coordinator(folder, settings(storage, keep_last=3))
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 4, {}, [row(4)], awaits_score=True)
    coordinator.commit(attempt, 8, {}, [row(8)])
    for _ in range(2):
        coordinator.add_score(4, metrics(0.5))
    coordinator.finish("FINISHED")
    history = client.get_metric_history(load_record(folder).mlflow_run_id, VALIDATION_LOSS)
    assert (load_record(folder).best.step, [metric.step for metric in history]) == (4, [4])


def test_a_run_scored_beside_training_stops_once_the_score_no_longer_improves(folder, storage, client):
    coordinator = Coordinator(folder, settings(storage, keep_last=3, stop_after=1))
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


def test_a_rank_that_hangs_is_told_and_its_group_killed(folder, storage):
    killed = []
    coordinator = Coordinator(folder, settings(storage, hang_seconds=0.1), kill=killed.extend)
    worker = WorkerInfo(1, "n", "host", 2**22 + 1, "")
    coordinator.begin_attempt([worker])
    eventually(lambda: killed == [worker])
    events = coordinator.progress().events
    coordinator.finish("FAILED")
    assert any("the workers hang: rank 1 (process 4194305 on host) made no progress" in event for event in events)


def test_a_group_that_does_not_start_ends_the_controller(folder, storage):
    ended = []
    given = settings(storage, start_seconds=0.1)
    coordinator = Coordinator(folder, given, end_controller=ended.append)
    coordinator.notify(WorkersStarting(2, "controller"))
    eventually(lambda: ended == ["controller"])
    coordinator.finish("FAILED")


def test_a_run_has_one_live_driver(coordinator, folder):
    with pytest.raises(BlockingIOError, match=r"has a live driver already, process \d+ on .*; wait for it, or stop it"):
        lock_run(folder)


def test_a_run_that_another_home_took_over_keeps_its_status(folder, storage, client, tmp_path):
    store = CheckpointStore(str(tmp_path / "bucket"))
    Claim(store, "two", "process 2 on west").take()
    coordinator = Coordinator(folder, settings(storage, claim=Claim(store, "one", "process 1 on east")))
    assert not coordinator.finish("FAILED")
    assert client.get_run(load_record(folder).mlflow_run_id).info.status == "RUNNING"
    lock_run(folder).close()


def test_a_run_without_a_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run\.json; run the same command again to write it"):
        Coordinator(tmp_path, CoordinatorSettings(tracking_uri="sqlite://"))
