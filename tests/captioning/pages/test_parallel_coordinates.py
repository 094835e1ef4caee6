import pytest

from captioning.pages.html import LIGHT
from captioning.pages.parallel_coordinates import draw_parallel, parameter_scale, shorten, spans_decades
from captioning.pages.trial_summary import TrialSummary


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
        ([1.0, 1.001, 2.0], False, {1: 0, 2: 1}, ["1", "1.2", "1.4", "1.6", "1.8", "2"]),  # 1 and 1.001 would overlap
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
    assert shorten(text) == shown


@pytest.mark.parametrize(
    ("scores", "mode", "spans"),
    [([1.0, 31.0], "min", True), ([1.0, 30.0], "min", False), ([1.0, 31.0], "max", False), ([0.0, 31.0], "min", False)],
)
def test_only_losses_that_are_far_apart_have_a_logarithmic_axis(scores, mode, spans):
    assert spans_decades(scores, mode) is spans


def test_each_trial_is_a_line_over_all_axes_and_a_running_one_is_dashed():
    states = ("finished", "running")
    trials = [TrialSummary(name=s, point={"x": 1, "y": 2}, curve=[(1, 1.0)], state=s, seconds=1.0) for s in states]
    scales = {key: parameter_scale(key, [1, 2]) for key in ("x", "y")}
    figure = draw_parallel(trials, scales, LIGHT, metric="loss", mode="min")
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert [line.get_linestyle() for line in lines] == ["--", "-"]  # the best is drawn last
