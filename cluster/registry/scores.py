"""Scores of registered versions and of the runs that trained them."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.config import CacheConfig
from cluster.errors import one_line
from cluster.registry.models import ResolvedModel

if TYPE_CHECKING:
    from cluster.data.shard_set import ShardSet
    from cluster.evaluation.evaluate import Evaluation

logger = logging.getLogger(__name__)

EVALUATION_TAG = "evaluation"


def evaluate_and_log(
    model: ResolvedModel,
    shard_set: "ShardSet",
    split: str,
    client: MlflowClient,
    *,
    storage: CacheConfig,
    beam_size: int,
    batch_size: int,
    progress: Callable[[int], None] = lambda count: None,
) -> "Evaluation":
    """Score a model on a split, or take the cached scores, and log them to its version and its run.

    Args:
        model: model to score, in its precision.
        shard_set: shard set with the split.
        split: name of the split.
        client: client of the tracker and registry.
        storage: storage with the home folder that caches evaluations.
        beam_size: beam size of the caption search.
        batch_size: number of images per batch.
        progress: function called with the number of images done.

    Raises:
        ValueError: there is no such split, or a shard is altered.
        FileNotFoundError: a shard is missing.
    """
    from cluster.evaluation.cache import CACHE_FOLDER, cached_evaluation  # imports torch; registration does not need it

    evaluation = cached_evaluation(
        model,
        shard_set,
        split,
        beam_size=beam_size,
        batch_size=batch_size,
        cache=storage.home / CACHE_FOLDER,
        progress=progress,
    )
    log_evaluation(model, evaluation, client)
    return evaluation


def log_evaluation(model: ResolvedModel, evaluation: "Evaluation", client: MlflowClient) -> None:
    """Log an evaluation to the model's version, if it has one, and to the run that trained it, if that is known."""
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
        logger.warning("the scores could not be logged to the MLflow run: %s", one_line(error, with_kind=False))


def evaluations_of(tags: Mapping[str, str], suffix: str = "") -> dict[str, dict[str, Any]]:
    """Return the evaluations among a run's or version's tags, by split; one that cannot be read is a warning.

    Args:
        tags: tags of the run or version.
        suffix: end of the tags' names, which is not part of the split's name.
    """
    prefix, found = f"{EVALUATION_TAG}.", {}
    for tag, value in tags.items():
        if tag.startswith(prefix) and tag.endswith(suffix):
            try:
                content = json.loads(value)
                content["scores"] = {name: float(score) for name, score in content["scores"].items()}
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                logger.warning("tag %s was altered and holds no scores (%s)", tag, one_line(error))
            else:
                found[tag.removeprefix(prefix).removesuffix(suffix)] = content
    return found


def keep_scores(evidence: Mapping[str, Any], client: MlflowClient) -> None:
    """Store the scores from a gate's evidence as tags of the versions that the gate compared."""
    for judged in (evidence["challenger"], evidence["champion"]):
        if not judged or not judged["name"]:
            continue
        summary = {name: evidence[name] for name in ("split", "shards_digest", "num_images", "tokenizer")}
        summary |= {name: judged[name] for name in ("step", "precision", "scores", "intervals")}
        summary["beam_size"] = evidence["settings"]["beam_size"]
        tag = f"{EVALUATION_TAG}.{evidence['split']}"
        client.set_model_version_tag(judged["name"], judged["version"], tag, json.dumps(summary))


def _run_tag(split: str, step: int) -> str:
    return f"{EVALUATION_TAG}.{split}.step-{step}"
