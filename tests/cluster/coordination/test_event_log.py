import pytest

from cluster.coordination.event_log import EventLog
from cluster.runs.score_history import VALIDATION_LOSS


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def log(now):
    return EventLog(lambda: now[0])


def lines(log, num_known=0):
    return log.after(num_known)[0]


def test_a_checkpoint_is_logged_with_the_units_of_its_scores(log):
    log.log_checkpoint(5, {VALIDATION_LOSS: 6.27, "validation_cider_d": 0.5}, at_once=False)
    assert lines(log) == ["checkpoint at step 5: validation loss 6.270 nats/word, validation cider d 0.500"]


def test_of_checkpoints_in_quick_succession_few_are_logged_and_the_last(log, now):
    for seconds, step, at_once in [(0, 1, False), (9, 2, False), (9, 3, True), (10, 4, False), (18, 5, False)]:
        now[0] = seconds
        log.log_checkpoint(step, {}, at_once=at_once)
    for _ in range(2):
        log.log_last_checkpoint()
    assert lines(log) == [f"checkpoint at step {step}" for step in (1, 3, 5)]


def test_a_checkpoint_is_logged_when_the_last_line_of_one_is_10_s_old(log, now):
    for seconds, step in [(0, 1), (10, 2)]:
        now[0] = seconds
        log.log_checkpoint(step, {}, at_once=False)
    assert lines(log) == ["checkpoint at step 1", "checkpoint at step 2"]


def test_a_caller_gets_the_lines_that_it_does_not_have(log):
    for event in ("a", "b", "c"):
        log.log(event)
    assert (log.after(2), log.after(3)) == ((["c"], 3), ([], 3))


def test_a_caller_that_knew_an_earlier_log_gets_all_lines(log):
    log.log("a")
    assert log.after(7) == (["a"], 1)
