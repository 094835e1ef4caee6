import logging
import re

import pytest

from cluster.coordination.messages import RunProgress
from cluster.job_progress import read_progress
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.training.progress import ProgressLog
from tests.support.clock import Clock


def progress(step, events=(), attempt=1):
    return RunProgress(
        attempt, Row(step, 0, {"epoch": step / 10, "train_loss_nats": 2.5, "images_per_second": 80.0}), list(events)
    )


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock, caplog):
    caplog.set_level(logging.INFO, "cluster")
    return ProgressLog(100, clock=clock)


def lines(caplog):
    """Return the log lines, without their time of day."""
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", record.getMessage()) for record in caplog.records]


def test_a_line_says_loss_speed_and_time_left(log, clock, caplog):
    log.show(progress(10))
    clock.now = 10
    log.show(progress(20))
    assert lines(caplog)[-1] == "step 20 of 100 (epoch 2.00): loss 2.500 nats/word, 80 images/s, 1 min 20 s left"


def test_a_line_says_what_share_of_the_time_goes_to_waiting_for_data(log, caplog):
    waiting = progress(10)
    log.show(waiting._replace(row=Row(10, 0, waiting.row.metrics | {"data_wait_share": 0.034})))
    assert lines(caplog)[-1].endswith("80 images/s (3 % data wait)")


def test_lines_come_a_few_times_a_minute(log, clock, caplog):
    for second in range(60):
        clock.now = float(second)
        log.show(progress(second + 1))
    assert len(lines(caplog)) == 6


def test_a_line_begins_with_the_time_of_day_and_names_the_best_validation_loss(log, caplog):
    best = CommittedCheckpoint(step=5, attempt=1, metrics={VALIDATION_LOSS: 2.25})
    log.show(progress(10)._replace(best=best))
    line = caplog.records[-1].getMessage()
    assert re.match(r"\d\d:\d\d:\d\d step 10 of 100 .*: loss 2.500 nats/word \(best validation 2.250\), 80", line)


def test_a_bar_gets_every_step_instead_of_lines(clock, caplog):
    shown = []
    log = ProgressLog(100, show_step=shown.append, clock=clock)
    for step in (1, 2, 2, 3):
        log.show(progress(step))
    assert ([one.step for one in shown], lines(caplog)) == ([1, 2, 3], [])


def test_the_same_step_is_not_shown_twice(log, clock, caplog):
    log.show(progress(100))
    log.show(progress(100), is_last=True)
    assert len(lines(caplog)) == 1


def test_the_last_step_is_shown_at_once(log, clock, caplog):
    log.show(progress(99))
    log.show(progress(100), is_last=True)
    assert lines(caplog)[-1].startswith("step 100 of 100")


def test_events_are_shown_once_in_order(log, caplog):
    for events in (["first"], ["second"], ["second"]):  # the last one is shown again at the end
        log.show(RunProgress(1, None, events, 1 if events == ["first"] else 2))
    assert lines(caplog) == ["first", "second"]


def test_events_of_a_coordinator_that_began_anew_are_shown(log, caplog):
    log.show(RunProgress(1, None, ["first", "second"], 2))
    log.show(RunProgress(2, None, ["third"], 1))
    assert lines(caplog) == ["first", "second", "third"]


def test_a_new_attempt_starts_a_new_estimate(log, clock, caplog):
    log.show(progress(50))
    clock.now = 20
    log.show(progress(10, attempt=2))
    assert "left" not in lines(caplog)[-1]


def test_steps_that_were_computed_again_are_shown(log, caplog):
    log.show(progress(10)._replace(num_steps_redone=12))
    assert lines(caplog)[-1].endswith("80 images/s, 12 steps redone")


def test_self_critical_training_is_named_with_its_reward(monkeypatch, caplog, capsys):
    monkeypatch.setenv("CAPTIONING_JOB", "job")
    caplog.set_level(logging.INFO, "cluster")
    log, metrics = ProgressLog(100), {"epoch": 1.0, "train_loss_nats": 1.5, "images_per_second": 80.0}
    for step, of_step in enumerate(({}, {"train_reward": 0.75}), start=10):
        log.show(RunProgress(1, Row(step, 0, metrics | of_step), [], phase="training"), is_last=True)
    # Threads of other tests may write lines of their own.
    last = [told for line in capsys.readouterr().err.splitlines() if (told := read_progress(line))][-1]
    assert (last["phase"], last["train_reward"]) == ("self-critical training", 0.75)
    assert "loss 1.500 nats/word, self-critical reward 0.750, 80 images/s" in lines(caplog)[-1]


def test_the_phase_is_loading_until_the_attempt_has_taken_a_step(monkeypatch, capsys):
    monkeypatch.setenv("CAPTIONING_JOB", "job")
    log = ProgressLog(100)
    old, new = (Row(step, 0, {"epoch": 1.0, "train_loss_nats": 2.5, "images_per_second": 80.0}) for step in (10, 11))
    for phase, row in [("waiting", old), ("starting", old), ("training", old), ("training", new), ("ended", new)]:
        log.show(RunProgress(2, row, [], phase=phase))
    phases = [told["phase"] for line in capsys.readouterr().err.splitlines() if (told := read_progress(line))]
    distinct = [phase for phase, before in zip(phases, [None, *phases], strict=False) if phase != before]
    expected = ["waiting for workers", "starting workers", "loading weights and data", "training", "ending workers"]
    assert distinct == expected
