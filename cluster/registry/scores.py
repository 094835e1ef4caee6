"""Scores of registered versions and of the runs that trained them, logged to MLflow."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric, Run

from captioning.evaluation.bootstrap import CONFIDENCE
from captioning.generation.config import GenerationConfig
from cluster.config import CacheConfig
from cluster.registry.cards import refresh_cards
from cluster.registry.evaluations import EVALUATION_TAG, evaluations_of, evaluations_of_run, run_artifact
from cluster.registry.logged_models import logged_model_id, logged_model_of
from cluster.registry.models import ResolvedModel, configuration_of
from cluster.tracking.datasets import dataset_of, split_inputs

if TYPE_CHECKING:
    from cluster.data.shard_set import ShardSet
    from cluster.evaluation.evaluate import Evaluation
from cluster.tracking.access import tracker_line

logger = logging.getLogger(__name__)

_LOGGED_AT = "logged_at"  # milliseconds since 1970; the same evaluation, logged again, is the same point in a chart


def evaluate_and_log(
    model: ResolvedModel,
    shard_set: "ShardSet",
    split: str,
    client: MlflowClient,
    *,
    storage: CacheConfig,
    generation: GenerationConfig,
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
        generation: settings of the search for captions.
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
        generation=generation,
        batch_size=batch_size,
        cache=storage.home / CACHE_FOLDER,
        progress=progress,
    )
    inputs = split_inputs(shard_set.folder, shard_set.manifest, [(split, "evaluation")])
    log_evaluation(model, evaluation, client, inputs=inputs)
    return evaluation


def log_evaluation(
    model: ResolvedModel, evaluation: "Evaluation", client: MlflowClient, *, inputs: Sequence[DatasetInput] = ()
) -> None:
    """Log an evaluation to the model's version, if it has one, and to the run that trained it, if that is known.

    Args:
        model: model that was evaluated.
        evaluation: scores of the model.
        client: client of the tracker and registry.
        inputs: the split that was captioned, as an input of the run.
    """
    summary = evaluation.summary()
    try:
        summary = _log_to_run(model, summary, inputs, client)
    except Exception as error:  # which type depends on the tracker's artifact store
        logger.warning("the MLflow run may lack the scores: %s", tracker_line(error))
    if model.name and model.version:
        _log_to_version(model.name, model.version, summary, client)


def _log_to_run(
    model: ResolvedModel, summary: Mapping[str, Any], inputs: Sequence[DatasetInput], client: MlflowClient
) -> dict[str, Any]:
    """Log an evaluation to the run; return it with the time at which it was logged first."""
    split, step = summary["split"], summary["step"]
    if not model.mlflow_run_id:
        return {**summary}
    run = client.get_run(model.mlflow_run_id)
    summary = {**summary, _LOGGED_AT: _logged_at(run, summary, client) or time.time_ns() // 10**6}
    if inputs:
        client.log_inputs(run.info.run_id, [*inputs])
        run = client.get_run(run.info.run_id)
    metrics = list(split_metrics(run, {split: summary}, model_id=model.logged_model_id))
    try:  # the file first: it has the time of the metrics, so that the same evaluation after a kill is the same points
        client.log_dict(run.info.run_id, summary, run_artifact(split, step))
    finally:
        client.log_batch(run.info.run_id, metrics=metrics)
    return summary


def _logged_at(run: Run, summary: Mapping[str, Any], client: MlflowClient) -> int | None:
    """Return when the same scores were logged to the run, in milliseconds since 1970; None if they were not."""
    try:
        known = evaluations_of_run(run, summary["step"], client).get(summary["split"], {})
    except Exception as error:  # which type depends on the tracker's artifact store
        logger.warning("earlier evaluations among the artifacts of the run cannot be read: %s", tracker_line(error))
        return None
    return known.get(_LOGGED_AT) if known.get("scores") == summary["scores"] else None


def _log_to_version(name: str, version: str, summary: Mapping[str, Any], client: MlflowClient) -> None:
    tag, text = f"{EVALUATION_TAG}.{summary['split']}", json.dumps(summary)
    if model_id := logged_model_id(client.get_model_version(name, version)):
        client.set_logged_model_tags(model_id, {tag: text})
        refresh_cards(name, version, client)
    else:
        client.set_model_version_tag(name, version, tag, text)


def split_metrics(
    run: Run, evaluations: Mapping[str, Mapping[str, Any]], *, model_id: str | None = None
) -> Iterator[Metric]:
    """Yield the scores of evaluations as metrics of the run, of its data, and of a LoggedModel if there is one.

    Args:
        run: run that trained the model.
        evaluations: evaluations by split.
        model_id: id of the LoggedModel.
    """
    for split, found in evaluations.items():
        dataset_name, dataset_digest = dataset_of(run, split, f"{found.get('shards_digest', '')}")
        at = found.get(_LOGGED_AT)
        for score, value in found["scores"].items():
            yield Metric(
                f"{split}/{score}",
                value,
                at if isinstance(at, int) else time.time_ns() // 10**6,
                int(found.get("step", 0)),
                model_id=model_id,
                dataset_name=dataset_name,
                dataset_digest=dataset_digest,
            )


def checkpoint_metrics(model: ResolvedModel, run: Run, client: MlflowClient, *, model_id: str) -> Iterator[Metric]:
    """Yield what the run has logged of a checkpoint, linked to the checkpoint's LoggedModel.

    Args:
        model: the checkpoint.
        run: run that trained it.
        client: client of the tracker.
        model_id: id of the LoggedModel.
    """
    split = configuration_of(model).get("validation_split", "val")
    digest = model.description.lineage.get("shards_digest", "")
    dataset_name, dataset_digest = dataset_of(run, split, digest)
    for name in model.description.metrics:
        for logged in client.get_metric_history(run.info.run_id, name):
            if logged.step == model.description.step:
                yield Metric(
                    name,
                    logged.value,
                    logged.timestamp,
                    logged.step,
                    model_id=model_id,
                    dataset_name=dataset_name,
                    dataset_digest=dataset_digest,
                )


def keep_scores(evidence: Mapping[str, Any], client: MlflowClient) -> None:
    """Store the scores from a gate's evidence with the versions that the gate compared."""
    for judged in (evidence["challenger"], evidence["champion"]):
        if not judged or not judged["name"]:
            continue
        summary = {name: evidence[name] for name in ("split", "shards_digest", "num_images", "tokenizer")}
        summary |= {name: judged[name] for name in ("step", "precision", "scores", "intervals")}
        # An earlier release judged all versions with the gate's beam size.
        summary |= judged.get("search") or {"beam_size": evidence["settings"]["beam_size"]}
        summary |= {"confidence": CONFIDENCE}
        _link_scores(judged["name"], judged["version"], summary, client)
        _log_to_version(judged["name"], judged["version"], summary, client)


def _link_scores(name: str, version: str, summary: dict[str, Any], client: MlflowClient) -> None:
    """Log scores that a version's LoggedModel does not have yet as its metrics."""
    found, split = client.get_model_version(name, version), summary["split"]
    model = logged_model_of(found, client)
    if not model or not found.run_id:
        return
    known = evaluations_of(model.tags).get(split, {})
    is_known = known.get("scores") == summary["scores"]
    summary[_LOGGED_AT] = known.get(_LOGGED_AT) if is_known else time.time_ns() // 10**6
    if not is_known:
        metrics = split_metrics(client.get_run(found.run_id), {split: summary}, model_id=model.model_id)
        client.log_batch(found.run_id, metrics=list(metrics))
