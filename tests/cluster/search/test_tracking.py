import math
import time
import uuid
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from cluster.config import StorageConfig, TrackingConfig
from cluster.runs.record import RunRecord
from cluster.search.scheduler import SearchScheduler
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.space.space import parse_space
from cluster.search.tracking import SearchTracker
from cluster.search.trials import SearchRecord, load_trials
from cluster.tracking.client import connect, create_run
from cluster.tracking.experiment import experiment_id

pytestmark = pytest.mark.cluster


@pytest.fixture
def run(tmp_path):
    return TuneRun(name="s", storage=StorageConfig(home=tmp_path), search=SearchConfig(num_trials=2, max_epochs=4))


@pytest.fixture(scope="module")
def reach(home):
    def reach():
        client = connect(TrackingConfig(), home)
        return client, experiment_id(client, TrackingConfig(), home)

    return reach


@pytest.fixture
def record(run, reach):
    run_id = create_run(*reach(), key=uuid.uuid4().hex, name="s", parameters={}, tags={})
    return SearchRecord(
        name="s", key="k", space={}, settings={"metric": run.search.metric}, identity={}, mlflow_run_id=run_id
    )


@pytest.fixture
def start(run, record, reach):
    """Return a function that starts the search and its tracker, as a driver does."""

    def start(reach=reach):
        def prepare(trial):
            folder = run.folder / "training" / trial.name
            folder.mkdir(parents=True, exist_ok=True)
            trial = replace(trial, mlflow_run_id=trial.mlflow_run_id or tracker.create_trial_run(trial, {}))
            RunRecord(name=trial.name, identity={}).save(folder)
            return trial

        space = parse_space({"model.hidden_size": "choice([8, 16])"}, run)
        search = SearchScheduler(run, space, load_trials(run.folder), num_trials=2, prepare=prepare)
        tracker = SearchTracker(reach, search, record, folder=run.folder, datasets=())
        return search, tracker

    return start


def report(search, epoch, score):
    search.add_report(0, {"step": epoch, "epoch": epoch, "validation_loss_nats": score, "seconds": 1.0})


def test_a_trial_knows_its_mlflow_run_before_it_starts(start, reach, record):
    search, _ = start()
    run_id = search.next_trial().mlflow_run_id
    assert reach()[0].get_run(run_id).data.tags["mlflow.parentRunId"] == record.mlflow_run_id


def test_a_tracker_that_is_down_keeps_no_trial_from_starting(start):
    def is_down():
        raise ConnectionError

    search, tracker = start(is_down)
    tracker.start()
    assert (search.next_trial().mlflow_run_id, tracker.finish("FAILED", {}, seconds=5.0)) == ("", False)


def test_a_search_that_resumes_runs_again(start, reach, record, monkeypatch):
    monkeypatch.setattr("cluster.search.tracking._SYNC_EVERY_SECONDS", 0.05)
    reach()[0].set_terminated(record.mlflow_run_id, status="KILLED")
    _, tracker = start()
    tracker.start()
    deadline = time.monotonic() + 10
    while reach()[0].get_run(record.mlflow_run_id).info.status != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.05)
    status = reach()[0].get_run(record.mlflow_run_id).info.status
    tracker.finish("FINISHED", {}, seconds=10.0)
    assert (status, reach()[0].get_run(record.mlflow_run_id).info.status) == ("RUNNING", "FINISHED")


def test_a_search_that_is_stopped_leaves_no_run_that_seems_to_run(start, reach, record):
    search, tracker = start()
    trials = [search.next_trial(), search.next_trial()]
    search.close()
    tracker.finish("KILLED", {}, seconds=10.0)
    runs = [reach()[0].get_run(run_id) for run_id in (record.mlflow_run_id, *(one.mlflow_run_id for one in trials))]
    assert [one.info.status for one in runs] == ["KILLED"] * 3


def test_another_start_does_not_move_the_end_of_a_trial_that_has_ended(start, reach):
    search, tracker = start()
    run_id = search.next_trial().mlflow_run_id
    search.end_trial(0, "finished")
    tracker.finish("FINISHED", {}, seconds=10.0)
    before = reach()[0].get_run(run_id).info.end_time
    _, tracker = start()
    tracker.finish("FINISHED", {}, seconds=10.0)
    assert reach()[0].get_run(run_id).info.end_time == before


def test_what_ended_before_is_asked_in_pages_and_not_trial_by_trial(start, reach, monkeypatch):
    monkeypatch.setattr("cluster.search.tracking._RUNS_PER_PAGE", 1)
    search, tracker = start()
    runs = [search.next_trial().mlflow_run_id for _ in range(2)]
    for number in range(2):
        search.end_trial(number, "finished")
    tracker.finish("FINISHED", {}, seconds=10.0)
    before = [reach()[0].get_run(run).info.end_time for run in runs]
    _, tracker = start()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_run", None)
        assert tracker.finish("FINISHED", {}, seconds=10.0)
    assert [reach()[0].get_run(run).info.end_time for run in runs] == before


def test_a_score_that_is_no_number_is_not_the_best(start, reach, record):
    search, tracker = start()
    search.next_trial()
    report(search, 1, math.nan)
    report(search, 2, 3.0)
    tracker.finish("FINISHED", {}, seconds=10.0)
    history = reach()[0].get_metric_history(record.mlflow_run_id, "best_validation_loss_nats")
    assert [(one.step, one.value) for one in history] == [(2, 3.0)]
