"""The view of the curves, as MLflow's pages store views."""

import json

from cluster.runs.score_history import VALIDATION_LOSS
from cluster.tracking.charts import view_tag

LONGEST_TAG = 5_000  # of an experiment, in MLflow


def test_both_losses_are_in_the_first_chart_over_epochs():
    state = json.loads(json.loads(view_tag())["state"])
    loss, *_ = state["compareRunCharts"]
    assert (loss["selectedMetricKeys"], loss["xAxisKey"], loss["selectedXAxisMetricKey"]) == (
        ["train_loss_nats", VALIDATION_LOSS],
        "metric",
        "epoch",
    )


def test_each_chart_is_in_a_section_and_has_an_id_of_its_own():
    state = json.loads(json.loads(view_tag())["state"])
    charts, sections = state["compareRunCharts"], {one["uuid"] for one in state["compareRunSections"]}
    assert {one["metricSectionId"] for one in charts} <= sections
    assert len({one["uuid"] for one in charts}) == len(charts)


def test_a_view_fits_into_a_tag():
    assert len(view_tag()) < LONGEST_TAG
