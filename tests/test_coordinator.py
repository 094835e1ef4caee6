import json
import threading

import pytest
from coordinated import eventually, row, settings, start_run

from cluster import coordinator as coordinating
from cluster.attempts import Failure
from cluster.coordinator import Coordinator
from cluster.journal import unshipped
from cluster.protocol import CoordinatorSettings, Place
from cluster.runs import hold_run, load_record


@pytest.fixture
def folder(tmp_path, client, home):
    return start_run(tmp_path, client, home)


@pytest.fixture
def coordinator(folder, home):
    made = Coordinator(folder, settings(home))
    yield made
    made.finish("FAILED")


def tracked_steps(client, folder):
    run_id = load_record(folder).mlflow_run_id
    return [metric.step for metric in client.get_metric_history(run_id, "loss")]


def test_attempts_are_numbered_over_all_drivers(coordinator, folder):
    coordinator.begin_attempt()
    assert (coordinator.begin_attempt().number, load_record(folder).attempt) == (2, 2)


def test_a_replaced_attempt_journals_nothing(coordinator, folder):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    coordinator.beat(old, 0, 1, [row(1)])
    assert coordinator.progress().row is None


def test_a_finished_run_has_every_row_in_the_tracker(folder, home, client):
    coordinator = Coordinator(folder, settings(home))
    attempt = coordinator.begin_attempt().number
    for step in range(1, 4):
        coordinator.beat(attempt, 0, step, [row(step)])
    assert coordinator.finish("FINISHED")
    status = client.get_run(load_record(folder).mlflow_run_id).info.status
    assert (tracked_steps(client, folder), status, load_record(folder).is_finished) == ([1, 2, 3], "FINISHED", True)


def test_steps_that_are_computed_again_are_tracked_once(folder, home, client):
    for _ in range(2):
        coordinator = Coordinator(folder, settings(home))
        attempt = coordinator.begin_attempt().number
        for step in range(1, 4):
            coordinator.beat(attempt, 0, step, [row(step)])
        coordinator.finish("KILLED")
    assert tracked_steps(client, folder) == [1, 2, 3]


def test_a_tracker_that_is_down_loses_nothing_and_stops_nothing(folder, home, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setitem(coordinating._LAST_SHIPPING_SECONDS, "FINISHED", 0.1)
    coordinator = Coordinator(folder, settings(home, tracking_uri="http://127.0.0.1:9"))
    attempt = coordinator.begin_attempt().number
    coordinator.beat(attempt, 0, 1, [row(1)])
    was_tracked = coordinator.finish("FINISHED")
    # What still tries to reach the tracker would go on into other tests.
    eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("captioning-shipper")])
    kept = [row.step for _, rows in unshipped(folder / "journal") for row in rows]
    assert (was_tracked, kept, load_record(folder).is_finished) == (False, [1], True)


def test_failures_are_told_to_people(coordinator):
    attempt = coordinator.begin_attempt().number
    coordinator.fail(attempt, Failure(1, 4, 32, "ValueError: bad"))
    assert coordinator.progress().events == ["rank 1 failed at step 4: ValueError: bad"]


def test_steps_that_are_computed_again_are_counted(coordinator):
    for _ in range(2):
        attempt = coordinator.begin_attempt().number
        coordinator.beat(attempt, 0, 1, [row(1), row(2)])
    assert coordinator.progress().num_steps_redone == 2


def test_a_replaced_rank_is_told_to_leave(coordinator):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    assert coordinator.beat(old, 0, 1).order == "leave"


def test_a_wish_has_a_number_of_its_own(coordinator):
    attempt = coordinator.begin_attempt().number
    before = coordinator.beat(attempt, 0, 1)
    coordinator.ask("stop")
    assert (before, coordinator.beat(attempt, 0, 2)) == (("go on", 0), ("stop", 1))


def test_a_failure_that_all_ranks_share_ends_the_run_at_once(coordinator):
    attempt = coordinator.begin_attempt().number
    coordinator.fail(attempt, Failure(0, 4, 32, "FloatingPointError: nan", is_agreed=True))
    assert coordinator.progress().verdict.why == "every worker failed alike"


def test_after_a_verdict_no_attempt_begins(coordinator):
    attempt = coordinator.begin_attempt().number
    coordinator.fail(attempt, Failure(0, 4, 32, "FloatingPointError: nan", is_agreed=True))
    with pytest.raises(PermissionError, match="the run is over; there is no further attempt"):
        coordinator.begin_attempt()


def test_the_same_failure_at_the_same_step_ends_the_run(coordinator):
    for _ in range(2):
        attempt = coordinator.begin_attempt().number
        coordinator.fail(attempt, Failure(0, 4, 32, "KeyError: 'x'"))
        coordinator.lose({1: ("gone", True)})
    assert "2 times in a row at the same step" in coordinator.progress().verdict.why


def test_ranks_that_fail_before_they_begin_end_the_run_too(coordinator):
    for _ in range(2):
        coordinator.expect_group(2)
        coordinator.fail(None, Failure(0, 0, 0, "ImportError: no module"))
        coordinator.lose({0: ("ImportError", False)})
    assert coordinator.progress().verdict.failure.reason == "ImportError: no module"


def test_a_preemption_is_no_crash(folder, home):
    coordinator = Coordinator(folder, settings(home, max_restarts=0))
    for _ in range(3):
        attempt = coordinator.begin_attempt().number
        coordinator.leave(attempt, "preemption")
        coordinator.lose({0: ("NodeLeaves", False), 1: ("NodeLeaves", False)})
    verdict = coordinator.progress().verdict
    coordinator.finish("FAILED")
    assert verdict is None


def test_a_rank_that_hangs_is_told_and_its_group_killed(folder, home):
    killed = []
    coordinator = Coordinator(folder, settings(home, hang_seconds=0.1), kill=killed.extend)
    place = Place(1, "n", "host", 2**22 + 1, "")
    coordinator.begin_attempt([place])
    eventually(lambda: killed == [place])
    events = coordinator.progress().events
    coordinator.finish("FAILED")
    assert any(
        "the workers hang: rank 1 (process 4194305 on host) gave no sign of progress" in event for event in events
    )


def test_a_rank_that_hangs_before_it_begins_is_told_and_its_group_killed(folder, home):
    killed = []
    coordinator = Coordinator(folder, settings(home, hang_seconds=0.1), kill=killed.extend)
    places = [Place(rank=0, node_id="n", host="host", pid=4194305, log="")]
    coordinator.expect_group(1)
    coordinator.watch_start(places)
    eventually(lambda: killed)
    assert any("the start of the workers hangs: rank 0" in event for event in coordinator.progress().events)
    coordinator.finish("FAILED")


def test_the_next_group_is_not_judged_by_the_one_before(folder, home):
    killed = []
    coordinator = Coordinator(folder, settings(home, hang_seconds=0.1), kill=killed.extend)
    coordinator.expect_group(1)
    coordinator.watch_start([Place(rank=0, node_id="n", host="host", pid=4194305, log="")])
    coordinator.expect_group(1)
    assert coordinator._watch.silent() is None
    coordinator.finish("FAILED")


def test_a_group_that_does_not_start_ends_the_controller(folder, home):
    ended = []
    given = settings(home, start_seconds=0.1)
    coordinator = Coordinator(folder, given, end_controller=ended.append)
    coordinator.attach("controller")
    coordinator.expect_group(2)
    eventually(lambda: ended == ["controller"])
    coordinator.finish("FAILED")


def test_groups_that_fail_to_start_use_up_the_budget(folder, home):
    coordinator = Coordinator(folder, settings(home, max_restarts=1))
    for _ in range(2):
        coordinator.expect_group(2)
        coordinator.fail_to_start("segmentation fault")
    verdict = coordinator.progress().verdict
    coordinator.finish("FAILED")
    assert "it failed 2 times" in verdict.why


def test_ranks_that_have_stopped_do_not_hang(folder, home):
    killed = []
    coordinator = Coordinator(folder, settings(home, hang_seconds=0.1), kill=killed.extend)
    attempt = coordinator.begin_attempt([Place(0, "n", "host", 2**22 + 1, "")])
    coordinator.note_stopped(attempt.number)
    is_silent = coordinator._watch.silent()
    coordinator.finish("FINISHED")
    assert (is_silent, killed) == (None, [])


def test_a_run_has_one_live_driver(coordinator, folder):
    with pytest.raises(BlockingIOError, match="has a live driver already; wait for it, or stop it"):
        hold_run(folder)


def test_a_run_without_a_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run\.json; the driver writes it first"):
        Coordinator(tmp_path, CoordinatorSettings(tracking_uri="sqlite://"))


def test_a_record_on_disk_is_whole_json(coordinator, folder):
    coordinator.begin_attempt()
    assert json.loads((folder / "run.json").read_text())["attempt"] == 1
