"""A run that is disturbed four times ends as one that nobody disturbed; and the drawing of what happens when."""

import pytest

from tests.faults.chaos import Report, as_markdown, as_text, run_chaos
from tests.faults.strikes import KINDS, plan_events

KILLED = ("worker", "node", "controller", "coordinator")  # test_kills.py kills the driver


def plan(**changes):
    return plan_events(**({"kinds": list(KINDS), "num_events": 40, "num_steps": 500, "seed": 0} | changes))


def test_the_same_seed_draws_the_same_events():
    assert plan() == plan()


def test_every_kind_comes_before_one_comes_again():
    assert sorted(event.kind for event in plan()[: len(KINDS)]) == sorted(KINDS)


def test_events_come_in_the_order_of_their_steps():
    steps = [event.step for event in plan() if event.step is not None]
    assert (steps, steps[0] > 0, steps[-1] < 490) == (sorted(steps), True, True)


def test_some_events_follow_another_at_once():
    assert 2 <= sum(event.step is None for event in plan()) <= 14


@pytest.mark.parametrize("form", [as_text, as_markdown])
def test_the_table_has_a_line_a_kind_and_below_it_what_holds(form):
    rows = [["training worker, SIGKILL", "2", "2 while training", "5 / 9", "0", "16 s / 17 s"]]
    lines = form(Report(rows=rows, claims=["all weights equal", "nothing left"], notes=["a note"])).splitlines()
    assert ("SIGKILL" in lines[-4], lines[-2:]) == (True, ["Unharmed: all weights equal; nothing left.", "a note"])


@pytest.fixture(scope="module")
def report(tmp_path_factory, drawn_shards, undisturbed):
    folder = tmp_path_factory.mktemp("chaos")
    return run_chaos(folder, drawn_shards, kinds=KILLED, num_kills=len(KILLED), seed=0, undisturbed=undisturbed)


@pytest.mark.cluster
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_run_that_was_killed_four_times_ends_as_one_that_was_not(report):
    # What must hold is asserted where it is compared; here is what was.
    assert [claim.partition(" ")[0] for claim in report.claims] == ["each", "all", "one", "no", "no"]


@pytest.mark.cluster
@pytest.mark.faults
def test_every_kind_of_kill_struck_and_is_accounted_for(report):
    assert [(row[0], row[1], row[4]) for row in report.rows] == [
        (words, "1", "0") for kind, (words, _, _) in KINDS.items() if kind in KILLED
    ]
