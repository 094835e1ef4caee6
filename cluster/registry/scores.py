"""Scores of registered versions and of the runs that trained them."""

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.errors import one_line
from cluster.registry.models import ResolvedModel

if TYPE_CHECKING:
    from cluster.evaluation.evaluate import Evaluation

logger = logging.getLogger(__name__)

EVALUATION_TAG = "evaluation"


def log_evaluation(model: ResolvedModel, evaluation: "Evaluation", client: MlflowClient) -> None:
    """Keep an evaluation with the model's version, if it has one, and with the run that trained it, if it is known."""
    summary = json.dumps(evaluation.summary())
    if model.name and model.version:
        client.set_model_version_tag(model.name, model.version, f"{EVALUATION_TAG}.{evaluation.split}", summary)
    if not model.mlflow_run_id:
        return
    try:
        for name, score in evaluation.scores.items():
            client.log_metric(model.mlflow_run_id, f"{evaluation.split}/{name}", score, step=evaluation.step)
        client.set_tag(model.mlflow_run_id, _run_tag(evaluation.split, evaluation.step), summary)
        client.log_dict(
            model.mlflow_run_id, evaluation.summary(), f"evaluations/{evaluation.split}-step-{evaluation.step}.json"
        )
    except MlflowException as error:
        logger.warning("the scores are not in MLflow: %s", one_line(error, with_kind=False))


def keep_scores(evidence: Mapping[str, Any], client: MlflowClient) -> None:
    """Keep the scores that a gate found with the versions that it judged."""
    for judged in (evidence["challenger"], evidence["champion"]):
        if not judged or not judged["name"]:
            continue
        summary = {name: evidence[name] for name in ("split", "shards_digest", "num_images")}
        summary |= {name: judged[name] for name in ("step", "scores", "intervals")}
        summary["beam_size"] = evidence["settings"]["beam_size"]
        tag = f"{EVALUATION_TAG}.{evidence['split']}"
        client.set_model_version_tag(judged["name"], judged["version"], tag, json.dumps(summary))


def _run_tag(split: str, step: int) -> str:
    return f"{EVALUATION_TAG}.{split}.step-{step}"
