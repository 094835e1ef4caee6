import os
import pickle
import signal
import time
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher

from cluster.config import StorageConfig
from cluster.search.scheduler import SearchScheduler
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.space.space import parse_space
from cluster.search.trials import load_trials
from cluster.search.tune_adapters import NextTrialSearcher, SchedulerCallback, run_tuner

RESULT = {"step": 8, "epoch": 1, "validation_loss_nats": 3.0, "seconds": 2.0}


@pytest.fixture
def run(tmp_path):
    search = SearchConfig(num_trials=1, max_epochs=1, sampler="grid")
    return TuneRun(name="s", storage=StorageConfig(home=tmp_path), search=search)


@pytest.fixture
def scheduler(run):
    space = parse_space({"model.hidden_size": "choice([8, 16])"}, run)
    return SearchScheduler(run, space, [], num_trials=1, prepare=lambda trial: trial)


def tune_trial(number=0, *, result=None, error=None):
    """Return a trial as Tune passes it to its callbacks."""
    return SimpleNamespace(config={"number": number}, last_result=result, get_error=lambda: error)


def test_tune_is_told_to_wait_for_trials_that_run_and_then_that_all_is_done(scheduler):
    searcher = NextTrialSearcher(scheduler)
    first, while_it_runs = searcher.suggest("a"), searcher.suggest("b")
    scheduler.end_trial(0, "finished")
    assert (first, while_it_runs, searcher.suggest("c")) == ({"number": 0, "until": 1}, None, Searcher.FINISHED)


@pytest.mark.parametrize(
    ("result", "state", "reason"),
    [
        ({**RESULT, "done": True}, "stopped", ""),
        ({"done": True, "is_complete": True}, "finished", ""),
        ({"done": True, "is_complete": True, "stopped_early": "no better"}, "finished", "stopped early: no better"),
        ({"done": True, "failure": "ValueError: too small"}, "failed", "ValueError: too small"),
        (None, "stopped", ""),
    ],
)
def test_a_trials_last_result_says_how_it_ended(run, scheduler, result, state, reason):
    scheduler.next_trial()
    SchedulerCallback(scheduler).on_trial_complete(1, [], tune_trial(result=result))
    assert [(trial.state, trial.reason) for trial in load_trials(run.folder)] == [(state, reason)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("Traceback:\n  x\nNode  died", "Node died"),
        (None, "its process was lost"),
        (
            "ray.exceptions.OutOfMemoryError: Task was killed.\nTo adjust the kill threshold, set x",
            "memory ran out, though no other",
        ),
    ],
)
def test_a_trial_that_was_lost_too_often_failed_with_the_cause(scheduler, error, reason):
    scheduler.next_trial()
    SchedulerCallback(scheduler).on_trial_error(1, [], tune_trial(error=error))
    assert [(trial.state, trial.reason[: len(reason)]) for trial in scheduler.trials] == [("failed", reason)]


def test_a_validation_is_a_report_of_its_trial(scheduler):
    scheduler.next_trial()
    SchedulerCallback(scheduler).on_trial_result(1, [], tune_trial(), RESULT)
    assert [(report.step, report.score) for report in scheduler.trials[0].reports] == [(8, 3.0)]


@pytest.mark.parametrize("adapter", [NextTrialSearcher, SchedulerCallback])
def test_tunes_copies_leave_the_scheduler_out(scheduler, adapter):
    assert "_scheduler" not in vars(pickle.loads(pickle.dumps(adapter(scheduler))))


def test_progress_is_shown_to_the_end_of_tune(scheduler):
    shown = []
    run_tuner(scheduler.next_trial, scheduler, shown.append)
    assert len(shown[-1].trials) == 1


def test_an_error_of_tune_is_raised(scheduler):
    def fit():
        raise ConnectionError("no cluster")

    with pytest.raises(ConnectionError, match="no cluster"):
        run_tuner(fit, scheduler, lambda progress: None)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["INT", "TERM"]
)
def test_a_signal_closes_the_search_at_once(run, scheduler, monkeypatch, number, error):
    monkeypatch.setattr("cluster.search.tune_adapters._SHOW_EVERY_SECONDS", 0.01)
    scheduler.next_trial()
    with pytest.raises(error):
        run_tuner(lambda: time.sleep(5), scheduler, lambda progress: os.kill(os.getpid(), number))
    scheduler.end_trial(0, "failed")
    assert [trial.state for trial in load_trials(run.folder)] == ["running"]
