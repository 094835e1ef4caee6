import json
import math

import pytest

from captioning.pages.charts import Chart, Curve, chart_values, thin

NAN = math.nan


def values(*curves, **options):
    return chart_values(Chart(title="Loss", unit="nats", curves=curves, **options))


def test_a_value_that_is_not_finite_leaves_a_gap():
    [curve, _] = values(Curve(name="", points=[(0, 4.0), (1, NAN), (2, 2.0), (3, 1.0)]))["shapes"]
    assert curve["path"].count("M") == 2


def test_a_chart_is_described_in_words():
    found = values(Curve(name="training", points=[(0, 4.0), (50, NAN), (100, 2.5)]), x_label="step")
    assert found["description"] == "Loss (nats); training: 4 at step 0, 2.5 at 100"


def test_curves_have_colours_of_their_own_and_a_legend_if_there_are_several():
    one, other = Curve(name="a", points=[(0, 1.0)]), Curve(name="b", points=[(0, 1.0)])
    assert values(one)["legend"] == []
    assert [(curve["name"], curve["colour"]) for curve in values(one, other)["legend"]] == [("a", "s0"), ("b", "s1")]


def test_intervals_are_a_band_or_a_bar_and_are_told_under_the_pointer():
    points, intervals = [(1, 0.5), (2, 0.6)], [(1, 0.4, 0.6), (2, 0.5, 0.9)]
    band = values(Curve(name="", points=points, intervals=intervals))
    assert [shape["kind"] for shape in band["shapes"]] == ["band", "curve", "dots"]
    assert band["shapes"][0]["path"].endswith("Z")
    assert json.loads(band["data"])["curves"][0]["points"][1] == [2, 0.6, "0.6 (0.5 to 0.9)"]
    bar = values(Curve(name="", points=points[:1], intervals=intervals[:1]))
    assert [shape["kind"] for shape in bar["shapes"]] == ["curve", "curve", "dots"]


def test_a_long_curve_is_thinned_to_means_and_keeps_its_end():
    points = [(number, float(number % 2)) for number in range(1000)]
    thinned = thin(points, 100)
    assert (len(thinned), thinned[-1], {value for _, value in thinned}) == (100, (999, 0.5), {0.5})
    (_, first), (_, second) = thin([(0, 1.0), (1, NAN), (2, NAN), (3, NAN)], 2)
    assert (first, math.isnan(second)) == (1.0, True)


def test_a_hundred_thousand_steps_make_a_small_chart():
    found = values(Curve(name="", points=[(number, math.sin(number)) for number in range(100_000)]))
    assert len(json.dumps(found)) < 20_000


@pytest.mark.parametrize("points", [[], [(0, math.nan), (1, math.inf)]])
def test_a_curve_without_a_finite_value_is_refused(points):
    with pytest.raises(
        ValueError, match=rf"curve 'loss' has no finite value \(points: {len(points)}\), .*; leave it out"
    ):
        Curve(name="loss", points=points)
