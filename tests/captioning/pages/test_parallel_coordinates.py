import math

import pytest

from captioning.pages.parallel_coordinates import shorten, trial_lines
from captioning.pages.trial_summary import TrialSummary
from tests.support.case_table import each_case


def trial(score, point, state="finished", name="t"):
    return TrialSummary(name=name, point=point, curve=[(1, score)], state=state, seconds=1.0)


def lines_of(*trials, mode="min", log_keys=()):
    return trial_lines(trials, metric="loss", mode=mode, log_keys=log_keys)


@each_case(
    ("values", "is_log", "shares", "texts"),
    [
        ([1, 3, 2], False, [0, 1, 0.5], ["1", "2", "3"]),
        ([10, 1000, 100], False, [0, 1, 0.5], ["10", "100", "1000"]),  # more than a decade
        ([1, 4, 2], True, [0, 1, 0.5], ["1", "2", "4"]),
        ([0, 1000], True, [0, 1], ["0", "1000"]),  # zero has no logarithm
        ([0.3], False, [0.5], ["0.3"]),
        ([True, False, True], False, [0.75, 0.25, 0.75], ["false", "true"]),
        ([None, "all"], False, [0.75, 0.25], ["all", "null"]),
        ([x / 10 for x in range(21)], False, None, ["0.0", "0.5", "1.0", "1.5", "2.0"]),
        ([1.0, 1.001, 2.0], False, None, ["1.0", "1.2", "1.4", "1.6", "1.8", "2.0"]),  # 1 and 1.001 would overlap
    ],
)
def test_a_setting_has_an_axis_that_suits_its_values(values, is_log, shares, texts):
    found = lines_of(*(trial(1.0, {"k": value}) for value in values), log_keys=["k"] if is_log else [])
    assert [text for _, text in found["rows"][0]["ticks"]] == texts
    if shares:
        places = [float(line["path"].removeprefix("M").split(" ")[0]) / 1000 for line in found["lines"][::-1]]
        assert places == pytest.approx(shares)


def test_the_best_is_drawn_last_and_the_better_the_bluer():
    found = lines_of(trial(1.0, {"k": 1}), trial(1.5, {"k": 2}, state="running"), trial(2.0, {"k": 3}))
    assert [(line["quality"], line["is_best"], line["is_running"]) for line in found["lines"]] == [
        (0, False, False), (50, False, True), (100, True, False),
    ]  # fmt: skip


def test_a_trial_that_lacks_a_setting_has_a_gap():
    [_, line] = lines_of(trial(1.0, {"a": 1, "c": 1}), trial(1.0, {"b": 2}))["lines"]
    assert (line["path"].count("M"), line["path"].count("L")) == (2, 1)


def test_without_settings_there_are_no_lines():
    assert lines_of(trial(1.0, {})) is None


def test_of_thousands_of_trials_the_best_are_drawn():
    found = lines_of(*(trial(1 + number, {"k": number}) for number in range(1000)))
    assert (len(found["lines"]), found["num_left_out"]) == (200, 800)
    assert not any(math.isnan(line["quality"]) for line in found["lines"])


@each_case(
    ("text", "shown"),
    [("a  b\nc", "a b c"), ("x" * 20, "x" * 20), ("search-with-a-long-name-017", "search-wi…g-name-017")],
)
def test_a_name_that_is_too_long_keeps_both_ends(text, shown):
    assert shorten(text) == shown
