import math

import pytest

from captioning.pages.parallel_coordinates import parameter_scale, short
from captioning.pages.search_charts import best_against_cost
from captioning.pages.trial_summary import TrialSummary

NAN = math.nan


def trial(*curve, state="finished", reported=()):
    return TrialSummary(name="t", point={}, curve=curve, state=state, seconds=1.0, reported=reported)


@pytest.mark.parametrize(
    ("trials", "mode", "points"),
    [
        ([trial((1, 3.0), (3, 2.0)), trial((2, 2.5))], "min", [(1, 3.0), (3, 2.0), (5, 2.0)]),
        ([trial((1, 3.0), (3, 2.0)), trial((2, 2.5))], "max", [(1, 3.0), (3, 3.0), (5, 3.0)]),
        # In the order of the reports, across trials.
        ([trial((1, 3.0), (2, 1.0), reported=(10, 30)), trial((1, 2.0), reported=(20,))], "min",
         [(1, 3.0), (2, 2.0), (3, 1.0)]),
        # In the order of the trials if a time is missing.
        ([trial((1, 3.0), (2, 1.0), reported=(10, 30)), trial((1, 2.0))], "min", [(1, 3.0), (2, 1.0), (3, 1.0)]),
        # A failed trial costs, and its score does not count.
        ([trial((4, 0.1), state="failed"), trial((1, 3.0))], "min", [(4, NAN), (5, 3.0)]),
        ([trial((1, NAN), (2, math.inf), (3, 2.0))], "min", [(1, NAN), (2, NAN), (3, 2.0)]),
        ([trial((1, 2.0)), trial((1, NAN))], "min", [(1, 2.0), (2, 2.0)]),
        ([trial((2, 2.0), (1, 3.0))], "min", [(2, 2.0), (2, 2.0)]),  # never negative
        ([], "min", []),
    ],
)  # fmt: skip
def test_the_best_score_is_told_against_what_all_trials_cost(trials, mode, points):
    assert [*map(repr, map(tuple, best_against_cost(trials, mode)))] == [repr((float(x), y)) for x, y in points]


@pytest.mark.parametrize(
    ("values", "is_log", "heights", "texts"),
    [
        ([1, 3, 2], False, {1: 0, 2: 0.5, 3: 1}, ["1", "2", "3"]),
        ([10, 1000, 100], False, {10: 0, 100: 0.5, 1000: 1}, ["10", "100", "1000"]),  # more than a decade
        ([1, 4, 2], True, {1: 0, 2: 0.5, 4: 1}, ["1", "2", "4"]),
        ([0, 1000], True, {0: 0, 500: 0.5, 1000: 1}, ["0", "1000"]),  # zero has no logarithm
        ([0.3], False, {0.3: 0.5}, ["0.3"]),
        ([True, False, True], False, {False: 0.25, True: 0.75}, ["false", "true"]),
        ([None, "all"], False, {"all": 0.25, None: 0.75}, ["all", "null"]),
        ([x / 10 for x in range(21)], False, {0: 0, 1: 0.5}, ["0", "0.4", "0.8", "1.2", "1.6", "2"]),
        ([1e-4 * 1.7**x for x in range(9)], False, {}, ["0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005"]),
        ([1.0, 1.001, 2.0], False, {1: 0, 2: 1}, ["1", "1.2", "1.4", "1.6", "1.8", "2"]),  # two would overlap
    ],
)  # fmt: skip
def test_a_parameter_has_an_axis_that_suits_its_values(values, is_log, heights, texts):
    scale = parameter_scale("k", values, is_log=is_log)
    assert {value: scale.height(value) for value in heights} == pytest.approx(heights)
    assert [text for _, text in scale.ticks] == texts
    assert all(0 <= height <= 1 for height, _ in scale.ticks)


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ("model.dropout", ["model.", "dropout"]),
        ("optimizer.encoder_learning_rate_factor", ["optimizer.", "encoder_learning_", "rate_factor"]),
        ("validation loss (nats per word)", ["validation loss", "(nats per word)"]),
        ("k" * 30, ["kkkkkkkkk…kkkkkkkkkk"]),
    ],
)
def test_a_long_label_is_broken(label, lines):
    assert parameter_scale(label, [1]).label.split("\n") == lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a  b\nc", "a b c"), ("x" * 20, "x" * 20), ("search-with-a-long-name-017", "search-wi…g-name-017")],
)
def test_a_name_that_is_too_long_keeps_both_ends(text, shown):
    assert short(text) == shown
