from dataclasses import replace

import pytest

from cluster.config import StorageConfig
from cluster.search.scheduler import SearchScheduler
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.space.space import parse_space
from cluster.search.trials import load_trials

SPACE = {"model.hidden_size": "choice([8, 16, 32])", "optimizer.learning_rate": "loguniform(1e-4, 1e-2)"}


@pytest.fixture
def run(tmp_path):
    return TuneRun(
        name="s",
        storage=StorageConfig(home=tmp_path),
        search=SearchConfig(num_trials=3, max_epochs=4, reduction_factor=2, sampler="random"),
    )


def search(run, *, space=SPACE, num_trials=None, clock=lambda: 0.0, prepare=lambda trial: trial):
    parsed = parse_space(space, run)
    trials = load_trials(run.folder)
    num_trials = num_trials or run.search.num_trials
    return SearchScheduler(run, parsed, trials, num_trials=num_trials, prepare=prepare, clock=clock)


def report(found, number, epoch, score, seconds=2.0):
    found.add_report(number, {"step": epoch * 8, "epoch": epoch, "validation_loss_nats": score, "seconds": seconds})


def test_trials_start_in_order_until_there_are_enough(run):
    found = search(run)
    assert [trial and trial.number for trial in (found.next_trial() for _ in range(4))] == [
        0, 1, 2, None,
    ]  # fmt: skip


def test_a_point_is_on_disk_before_its_trial_starts(run):
    trial = search(run).next_trial()
    assert load_trials(run.folder) == [trial]


def test_another_start_resumes_the_trials_that_have_not_ended_and_then_starts_new_ones(run):
    first = search(run)
    before = [first.next_trial(), first.next_trial()]
    first.end_trial(0, "finished")
    second = search(run)
    again, new, none = second.next_trial(), second.next_trial(), second.next_trial()
    assert (again, new.number, none, second.is_done) == (before[1], 2, None, False)


def test_a_search_of_more_trials_continues(run):
    first = search(run)
    for _ in range(3):
        first.end_trial(first.next_trial().number, "finished")
    assert (first.is_done, search(run, num_trials=5).is_done) == (True, False)


def test_a_grid_ends_with_its_points(run):
    grid = replace(run, search=replace(run.search, sampler="grid"))
    found = search(grid, space={"model.hidden_size": "choice([8, 16])"})
    assert [trial and trial.point for trial in (found.next_trial(), found.next_trial(), found.next_trial())] == [
        {"model.hidden_size": 8}, {"model.hidden_size": 16}, None,
    ]  # fmt: skip


def test_a_step_that_a_trial_reports_again_after_a_restart_is_ignored(run):
    found = search(run)
    found.next_trial()
    report(found, 0, 1, 3.0)
    report(found, 0, 2, 2.5)
    report(found, 0, 1, 3.0)
    assert [(one.epoch, one.score) for one in found.trials[0].reports] == [(1, 3.0), (2, 2.5)]


def test_a_result_without_the_metric_is_no_report(run):
    found = search(run)
    found.next_trial()
    found.add_report(0, {"done": True, "failure": "x"})
    assert found.trials[0].reports == ()


def test_how_a_trial_ended_is_on_disk(run):
    found = search(run)
    found.next_trial()
    found.end_trial(0, "failed", "ValueError: too small")
    assert [(one.state, one.reason) for one in load_trials(run.folder)] == [("failed", "ValueError: too small")]


def test_progress_guesses_the_time_left_from_the_trials_that_ended(run):
    now = [0.0]
    found = search(run, clock=lambda: now[0])
    for number, epochs in ((0, 4), (1, 2)):
        found.next_trial()
        for epoch in range(1, epochs + 1):
            report(found, number, epoch, 3.0 - epoch)
        found.end_trial(number, "finished")
    now[0] = 12.0
    progress = found.progress()
    # Six epochs in 12 s; the third trial is expected to take the mean of the others, three.
    assert (progress.num_epochs_done, progress.seconds_left, progress.best.number) == (6, 6.0, 0)


def test_nothing_is_guessed_from_nothing(run):
    assert search(run).progress().seconds_left is None


def test_what_happens_while_a_search_is_taken_down_is_not_how_its_trials_ended(run):
    found = search(run)
    trial = found.next_trial()
    found.close()
    found.end_trial(0, "failed", "its process was lost")
    assert (found.next_trial(), load_trials(run.folder)) == (None, [trial])


def test_trials_that_run_out_of_memory_resume_later_with_fewer_at_once(run):
    found = search(run)
    for _ in range(3):
        found.next_trial()
    found.run_out_of_memory(2)
    found.run_out_of_memory(1)
    while_one_trains = found.next_trial()
    found.end_trial(0, "finished")
    assert (while_one_trains, found.next_trial().number, found.next_trial(), found.is_done) == (None, 2, None, False)
    found.end_trial(2, "finished")
    assert (found.next_trial().number, found.next_trial()) == (1, None)


def test_a_trial_that_runs_out_of_memory_alone_has_failed(run):
    found = search(run)
    found.next_trial()
    found.run_out_of_memory(0)
    assert [(one.state, one.reason[:15]) for one in load_trials(run.folder)] == [("failed", "memory ran out,")]
