import io
import logging
import re
import time

import pytest
from rich.console import Console

from cluster.search.scheduler import SearchProgress
from cluster.search.space.config import SearchConfig
from cluster.search.trials import Trial, TrialReport, best_trial
from jobs.console.search_view import Lines, search_view, spent, trials_table

SEARCH = SearchConfig()


def trial(number, state, *scores):
    reports = tuple(TrialReport(epoch * 8, epoch, score, 2.0, epoch) for epoch, score in enumerate(scores, start=1))
    point = {"optimizer.learning_rate": 0.00123456, "model.hidden_size": 256}
    return Trial(number=number, point=point, key="k", until=4, state=state, reports=reports)


def progress(*trials, seconds=75.0, seconds_left=None):
    return SearchProgress(
        trials=trials, num_trials=20, max_epochs=4, best=best_trial(trials, "min"), seconds=seconds,
        num_epochs_done=sum(one.epochs for one in trials), seconds_left=seconds_left,
    )  # fmt: skip


@pytest.fixture
def some():
    return progress(
        trial(0, "stopped", 4.5), trial(1, "finished", 4.0, 3.25), trial(2, "running"), trial(3, "failed"),
        seconds_left=130.0,
    )  # fmt: skip


def shown(table):
    console = Console(width=120, record=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_the_best_trial_is_the_first_row_with_its_score_and_settings(some):
    rows = [line.split() for line in shown(trials_table(some, SEARCH)).splitlines() if "trial-" in line]
    assert [cell for cell in rows[0] if cell != "│"] == ["trial-0001", "finished", "2", "3.2500", "0.00123", "256"]


def test_trials_without_a_score_come_last(some):
    lines = [line for line in shown(trials_table(some, SEARCH)).splitlines() if "trial-" in line]
    assert ["trial-0002" in lines[2], "trial-0003" in lines[3]] == [True, True]


def test_only_the_ten_best_are_shown():
    many = progress(*(trial(number, "finished", 5.0 - number / 10) for number in range(15)))
    text = shown(trials_table(many, SEARCH))
    assert (text.count("trial-"), "trial-0014" in text, "trial-0004" in text) == (10, True, False)


def test_what_was_spent_and_what_is_left_is_said_in_a_line(some):
    assert spent(some) == (
        "4 of 20 trials: 1 finished, 1 stopped, 1 failed, 1 running; 3 epochs in 1 min 15 s; about 2 min 10 s left"
    )


def test_a_search_that_has_just_begun_says_so():
    assert spent(progress(seconds=0.0)) == "0 of 20 trials: none yet; 0 epochs in 0 s"


def test_a_table_of_no_trials_is_empty():
    assert "none yet" in shown(trials_table(progress(), SEARCH))


@pytest.mark.parametrize(("later", "expected"), [(5.0, 1), (10.0, 2)])
def test_lines_come_when_something_has_changed_but_not_too_often(some, caplog, log_lines, later, expected):
    now = [0.0]
    lines = Lines(SEARCH, clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        lines.show(some)
        lines.show(some)
        now[0] = later
        lines.show(progress(trial(0, "finished", 2.0)))
    assert len(log_lines()) == expected


def test_a_line_names_the_best(some, caplog, log_lines):
    with caplog.at_level(logging.INFO):
        Lines(SEARCH).show(some)
    assert log_lines()[0].endswith("best 3.2500 by trial-0001")


def test_an_extraction_is_told_in_lines_too(caplog, log_lines):
    with caplog.at_level(logging.INFO):
        Lines(SEARCH).show_extraction(64, 600)
    (line,) = log_lines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d extracted features of 64 of 600 images", line)


def test_where_nobody_looks_there_are_lines():
    with search_view(SEARCH) as view:
        assert isinstance(view, Lines)


def test_log_lines_stand_above_the_live_table(some, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(terminal)])
    monkeypatch.setenv("TERM", "xterm")
    with search_view(SEARCH) as view:
        view.show(some)
        time.sleep(0.7)  # it is drawn twice a second
        logging.getLogger("cluster").warning("the tracker is down")
    assert "\x1b[2Kthe tracker is down\n" in terminal.getvalue()  # the table's last line is erased first
