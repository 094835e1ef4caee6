"""Charts of a training in MLflow: a saved view of an experiment's page, with the losses of runs in one chart.

MLflow draws a chart for each metric, by step, and scores of evaluations first. Which metrics share a chart is stored in
a view of the experiment; a run's own page has no views.
"""

import json
import time
from typing import Any

from cluster.runs.score_history import VALIDATION_LOSS

VIEW_NAME = "curves"
MODE = "workflowType=machine_learning"
"""Query of MLflow's pages for those of models; otherwise they are those of agents, whose first page has no runs."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_NAME}"
_SECTION = "Training"
_SECTIONS = (_SECTION, "Model metrics", "System metrics")
_CHARTS = (
    ("Loss, nats per word", ("train_loss_nats", VALIDATION_LOSS)),
    ("Scores of validations", ("validation_cider_d", "validation_bleu_4", "validation_rouge_l")),
    ("Self-critical reward", ("train_reward",)),
    ("Learning rate", ("learning_rate",)),
    ("Images per second", ("images_per_second",)),
    ("Share of a step that waits for data", ("data_wait_share",)),
    ("Gradient norm", ("gradient_norm",)),
)


def view_tag() -> str:
    """Return the view as MLflow's pages store it in a tag of an experiment."""
    now = time.time_ns() // 10**6
    state = {
        "compareRunCharts": [_chart(title, metrics) for title, metrics in _CHARTS],
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": False, "deleted": False, "isGenerated": True}
            for name in _SECTIONS
        ],
        "isAccordionReordered": True,  # keeps the sections in this order, and adds those of further metrics below
        "hideEmptyCharts": True,
    }
    return json.dumps({"name": VIEW_NAME, "createdAt": now, "updatedAt": now, "state": json.dumps(state)})


def view_page(experiment: str) -> str:
    """Return the place of the view below the tracker's address.

    Args:
        experiment: id of the experiment.
    """
    return f"#/experiments/{experiment}/runs?compareRunsMode=CHART&viewStateShareKey={VIEW_NAME}&{MODE}"


def _chart(title: str, metrics: tuple[str, ...]) -> dict[str, Any]:
    return {
        "uuid": title,
        "type": "LINE",
        "metricSectionId": _SECTION,
        "displayName": title,
        "metricKey": metrics[0],
        "selectedMetricKeys": metrics,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": True,
        "xAxisKey": "metric",
        "selectedXAxisMetricKey": "epoch",
        "useGlobalXaxisKey": False,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
    }
