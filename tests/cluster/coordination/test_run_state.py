"""What a run's coordinator keeps on disk, in the tracker and in the log."""

import threading

import pytest

from cluster.coordination.messages import CoordinatorSettings
from cluster.coordination.run_state import RunState
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import Claim
from cluster.runs.journal import Journal, unshipped
from cluster.runs.record import load_record, lock_run
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.tracking import metric_logging
from tests.support.clock import eventually
from tests.support.coordinators import metrics, row, settings


def begun(folder, home, **changes):
    """Return the state of a run whose attempt has begun, with a clock that stands still."""
    state = RunState(folder, settings(home, **changes), lambda: 0.0)
    state.begin_attempt(2)
    return state


def commit(state, step, scores, *, awaits_score=False):
    state.commit(step, scores, awaits_score=awaits_score, is_requested=False)


def events(state):
    return state.events.after(0)[0]


def tracked_steps(client, folder, metric="loss"):
    return [one.step for one in client.get_metric_history(load_record(folder).mlflow_run_id, metric)]


def test_an_attempt_says_how_many_workers_begin_where(folder, home):
    state = begun(folder, home)
    commit(state, 4, {})
    state.begin_attempt(1)
    state.finish("KILLED")
    assert events(state) == [
        "2 workers started; loading weights",
        "checkpoint at step 4",
        "attempt 2 resumes at step 4 with 1 worker",
    ]


def test_what_goes_wrong_is_logged_once_and_is_a_tag_of_the_run_until_it_passes(folder, home, client):
    state = begun(folder, home)
    for step, loss in ((1, 4.0), (2, 5.0), (3, 5.0), (4, 5.0)):
        state.add_rows([row(step)])
        commit(state, step, metrics(loss))
    warnings = [event for event in events(state) if "warning" in event]
    state.finish("KILLED")
    told = "has a validation loss of 5.000 nats/word, 25% above its lowest since step 2"
    assert (warnings, load_record(folder).best.metrics) == ([f"warning: the model {told}"], metrics(4.0))
    run_id = load_record(folder).mlflow_run_id
    eventually(lambda: client.get_run(run_id).data.tags.get("health") == told)
    again = begun(folder, home)
    commit(again, 5, metrics(3.9))
    again.finish("FINISHED")
    assert (f"no longer so: the model {told}" in events(again), client.get_run(run_id).data.tags["health"]) == (
        True,
        "",
    )


def test_the_journal_is_on_disk_before_a_checkpoint_counts(folder, home):
    state = begun(folder, home)
    state.add_rows([row(1)])
    commit(state, 1, metrics(1.0))
    assert Journal(folder / "journal").last_step == 1
    state.finish("KILLED")


def test_a_finished_run_has_every_row_in_the_tracker(folder, home, client):
    state = begun(folder, home)
    for step in range(1, 4):
        state.add_rows([row(step)])
    assert state.finish("FINISHED")
    status = client.get_run(load_record(folder).mlflow_run_id).info.status
    assert (tracked_steps(client, folder), status, load_record(folder).is_finished) == ([1, 2, 3], "FINISHED", True)


def test_steps_that_are_computed_again_are_tracked_once(folder, home, client, monkeypatch):
    # A busy machine takes longer than a killed process may.
    monkeypatch.setitem(metric_logging._LAST_SECONDS, "KILLED", 60.0)
    for _ in range(2):
        state = begun(folder, home)
        state.add_rows([row(step) for step in range(1, 4)])
        state.finish("KILLED")
    assert tracked_steps(client, folder) == [1, 2, 3]


def test_a_tracker_that_is_down_loses_nothing_and_stops_nothing(folder, home, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setitem(metric_logging._LAST_SECONDS, "FINISHED", 0.1)
    state = begun(folder, home, tracking_uri="http://127.0.0.1:9")
    state.add_rows([row(1)])
    was_tracked = state.finish("FINISHED")
    # A thread that still tries to reach the tracker would run on into other tests.
    eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("captioning-shipper")])
    kept = [row.step for _, rows in unshipped(folder / "journal") for row in rows]
    assert (was_tracked, kept, load_record(folder).is_finished) == (False, [1], True)


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(folder, home):
    state = begun(folder, home, keep_last=2)
    for step in (4, 8):
        commit(state, step, metrics(1.0))
    latest = state.begin_attempt(2).latest
    again = state.reject(latest, "model.safetensors is altered")
    state.finish("FAILED")
    assert (latest.step, again.latest.step, load_record(folder).latest.step) == (8, 4, 4)
    told = f"checkpoint {latest.name} is damaged (model.safetensors is altered); using the checkpoint at step 4"
    assert events(state)[-1] == told


def test_a_score_is_attached_to_its_step_and_tracked_once(folder, home, client):
    state = begun(folder, home, keep_last=3)
    state.add_rows([row(4)])
    commit(state, 4, {}, awaits_score=True)
    state.add_rows([row(8)])
    commit(state, 8, {})
    for _ in range(2):
        state.add_score(4, metrics(0.5))
    state.finish("FINISHED")
    assert (load_record(folder).best.step, tracked_steps(client, folder, VALIDATION_LOSS)) == (4, [4])


def test_a_run_that_another_home_took_over_keeps_its_status(folder, home, client, tmp_path):
    store = CheckpointStore(str(tmp_path / "bucket"))
    Claim(store, "two", "process 2 on west").take()
    state = RunState(folder, settings(home, claim=Claim(store, "one", "process 1 on east")), lambda: 0.0)
    assert not state.finish("FAILED")
    assert client.get_run(load_record(folder).mlflow_run_id).info.status == "RUNNING"
    lock_run(folder).close()


def test_a_run_without_a_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run\.json; run the same command again to write it"):
        RunState(tmp_path, CoordinatorSettings(tracking_uri="sqlite://"), lambda: 0.0)
