import math

import pytest

from captioning.pages.trial_summary import TrialSummary, parameter_keys, rank_trials, value_text
from tests.support.case_table import each_case


def trial(name="t", scores=(), point=(), **changes):
    """Return a trial with one score per epoch."""
    given = {"state": "finished", "seconds": 1.0, "curve": [*enumerate(scores, start=1)]}
    return TrialSummary(name=name, point=dict(point), **given | changes)


def test_times_that_belong_to_no_point_are_refused():
    with pytest.raises(
        ValueError, match=r"trial t has different numbers of curve points \(2\) and times \(1\); give one time per"
    ):
        trial(scores=[1.0, 2.0], reported=[3.0])


def test_equal_scores_keep_their_order():
    assert [(rank, one.name) for rank, one in rank_trials([trial("b", [1.0]), trial("a", [1.0])], "min")] == [
        (1, "b"), (2, "a"),
    ]  # fmt: skip


@pytest.mark.parametrize(("mode", "ranks"), [("min", {"low": 1, "high": 2}), ("max", {"high": 1, "low": 2})])
def test_only_trials_with_a_score_that_did_not_fail_have_ranks(mode, ranks):
    trials = [trial("failed", [0.5], state="failed"), trial("none"), trial("low", [1.0]), trial("high", [3.0])]
    found = rank_trials(trials, mode)
    assert {one.name: rank for rank, one in found if rank} == ranks
    assert [one.name for rank, one in found if not rank] == ["none", "failed"]


@pytest.mark.parametrize(("mode", "best"), [("min", 1.0), ("max", 2.0)])
def test_the_best_score_is_of_any_epoch_and_finite(mode, best):
    assert trial(scores=[math.inf, 2.0, 1.0, math.nan, -math.inf]).best(mode) == best
    assert trial(scores=[math.nan]).best(mode) is None


def test_epochs_are_counted_to_the_last_validation():
    assert (trial(curve=[(2, 1.0), (4, math.nan)]).num_epochs, trial().num_epochs) == (4, 0)


def test_keys_are_in_the_order_of_their_first_use():
    assert parameter_keys([trial(point={"b": 1}), trial(point={"a": 1, "b": 2})]) == ["b", "a"]


@each_case(("value", "text"), [(1 / 3, "0.3333333333333333"), (True, "true"), (None, "null"), ("a", "a")])
def test_a_value_is_written_in_full(value, text):
    assert value_text(value) == text
