"""Pages of evaluated models: of the run, if it is on this machine, and of the version, beside the champion."""

import logging
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.config import HomeConfig
from cluster.data.shard_set import ShardSet
from cluster.errors import one_line
from cluster.evaluation.cache import CACHE_FOLDER, find_evaluation
from cluster.evaluation.evaluate import Evaluation
from cluster.promotion.gate import Gate, search_of
from cluster.promotion.promotion import Promotion
from cluster.registry.cards import link_page
from cluster.registry.champion import CHAMPION
from cluster.registry.history import read_history
from cluster.registry.models import ResolvedModel, resolve_model, shards_of
from cluster.reports.run_page import Evaluated, write_run_page
from cluster.reports.training_story import CURVES, TrainingStory, story_of
from cluster.reports.version_page import Rival, version_folder, write_version_page
from cluster.runs.record import RunRecord, load_record
from cluster.tracking.metric_history import metrics_by_step
from cluster.tracking.pages import log_page

logger = logging.getLogger(__name__)


def write_pages(
    model: ResolvedModel,
    evaluation: Evaluation,
    shard_set: ShardSet,
    client: MlflowClient,
    storage: HomeConfig,
    *,
    over: str | None = None,
) -> Path | None:
    """Write the page of an evaluated version, or of a run if the model is its best checkpoint, and log it to MLflow.

    The page is in the folder of the run; that of a version whose run is not on this machine is in the home folder.

    Args:
        model: model that was evaluated.
        evaluation: its evaluation.
        shard_set: shard set of the evaluation.
        client: client of the tracker and registry.
        storage: storage with the home folder, which has the runs and the cached evaluations.
        over: number of the version to compare with; None for the champion, or for the one before it if the model is
            the champion itself.

    Returns:
        The page; None if there is none to write, or, with a warning, if it cannot be written.
    """
    run_id = model.mlflow_run_id or ""
    folder, record = _run_of(model, storage)
    evaluated = Evaluated(evaluation, shard_set)
    if model.name and model.version:
        rival = _rival(model, evaluated, client, storage, over)
        story = None if folder else _story(run_id, client)
        page = write_version_page(folder or storage.home, model, evaluated, rival, story=story)
        artifacts = version_folder(model)
    elif folder and record and record.best and record.best.step == model.description.step:
        page = write_run_page(folder, shard_set=shard_set, lineage=model.description.lineage, evaluated=evaluated)
        artifacts = ""
    else:
        return None
    if page and run_id and log_page(client, run_id, page, artifacts) and model.name:
        link_page(model.name, f"{model.version}", f"{artifacts}/{page.name}", client)
    return page


def write_promotion_page(outcome: Promotion, client: MlflowClient, gate: Gate) -> Path | None:
    """Write the page of a version that the gate has judged, beside the champion that it was compared with."""
    version = outcome.change.version
    try:
        model = resolve_model(f"models:/{outcome.name}/{version}", client)
        shard_set = ShardSet(gate.shards or shards_of(model), cache_gib=gate.storage.cache_gib)
    except (ValueError, OSError, MlflowException) as error:
        logger.warning("the page of %s version %s could not be written: %s", outcome.name, version, one_line(error))
        return None
    cache = gate.storage.home / CACHE_FOLDER
    evaluation = find_evaluation(model, shard_set, gate.split, generation=search_of(model, gate.config), cache=cache)
    if evaluation is None:
        return None
    return write_pages(model, evaluation, shard_set, client, gate.storage, over=outcome.change.over)


def _story(run_id: str, client: MlflowClient) -> TrainingStory | None:
    """Return the curves of a run that the tracker has; None if it does not have the run."""
    try:
        return story_of(*metrics_by_step(client, run_id, CURVES))
    except MlflowException as error:
        logger.debug("no curves of run %s: %s", run_id, one_line(error))
        return None


def _run_of(model: ResolvedModel, storage: HomeConfig) -> tuple[Path, RunRecord] | tuple[None, None]:
    """Return the folder and the record of the run that trained a model, if they are on this machine."""
    in_home = storage.home / "training" / model.description.lineage.get("run", "")
    for folder in (model.folder.parent.parent, in_home):  # a checkpoint is in its run's folder ``checkpoints``
        try:
            record = load_record(folder)
        except (ValueError, OSError) as error:
            logger.debug("%s is no run: %s", folder, one_line(error))
            continue
        if record and record.mlflow_run_id == (model.mlflow_run_id or ""):
            return folder, record
    return None, None


def _rival(
    model: ResolvedModel, evaluated: Evaluated, client: MlflowClient, storage: HomeConfig, over: str | None
) -> Rival | None:
    """Return the champion with its cached evaluation of the same images; None if there is none."""
    try:
        champion = resolve_model(f"models:/{model.name}/{over}" if over else f"models:/{model.name}@{CHAMPION}", client)
        if champion.version == model.version:
            changes, _ = read_history(str(model.name), client)
            over = next((one.over for one in reversed(changes) if one.version == model.version), None)
            if over is None:
                return None
            champion = resolve_model(f"models:/{model.name}/{over}", client)
    except (ValueError, OSError, MlflowException) as error:
        logger.debug("no champion to compare with: %s", one_line(error))
        return None
    evaluation = evaluated.evaluation
    cache = storage.home / CACHE_FOLDER
    for generation in (evaluation.generation, champion.generation):  # the gate judges each by its own
        options = {"generation": generation, "cache": cache}
        if found := find_evaluation(champion, evaluated.shard_set, evaluation.split, **options):
            return Rival(f"version {champion.version}", found)
    return None
