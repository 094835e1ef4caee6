"""Registration of a checkpoint as a version in MLflow's registry, which MLflow can serve without this checkout."""

import contextlib
import json
import tempfile
from dataclasses import asdict, replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from captioning.config import Precision
from captioning.generation.config import GenerationConfig
from captioning.serving.image_input import ImageInputConfig
from captioning.serving.parameters import check_served
from captioning.training.checkpoint_description import VOCABULARY
from cluster.errors import one_line
from cluster.git import git_state
from cluster.registry.challenger import finish_registration, finish_registrations
from cluster.registry.evaluations import EVALUATION_TAG, evaluations_of, evaluations_of_run
from cluster.registry.history import ensure_history, is_history
from cluster.registry.logged_models import (
    STATUS_TAG,
    UNFINISHED_TAG,
    create_logged_model,
    default_tracker,
    record_of,
    require_logged_models,
)
from cluster.registry.models import GENERATION_PREFIX, PRECISION_TAG, ResolvedModel, configuration_of
from cluster.registry.packaging import SERVED_PACKAGES, save_package
from cluster.registry.safe_loading import FORMAT_TAG, FORMAT_VERSION
from cluster.registry.scores import checkpoint_metrics, split_metrics
from cluster.settings import check_model_name
from cluster.tracking.access import is_about_the_request
from cluster.tracking.client import current_user


def register(
    model: ResolvedModel,
    name: str,
    client: MlflowClient,
    *,
    generation: GenerationConfig | None = None,
    precision: Precision = "fp32",
    intake: ImageInputConfig | None = None,
) -> ModelVersion:
    """Register a checkpoint as a new version of ``name`` with the alias ``challenger``.

    The version is a self-contained MLflow pyfunc model. Its LoggedModel names run, step, digests, commits, package
    versions and the evaluations of this checkpoint. If this process is killed, the next command finishes the version,
    or the same command uses the LoggedModel.

    Args:
        model: checkpoint to register.
        name: model's name in the registry.
        client: client of the tracker that holds the run.
        generation: settings of the search for captions where a request names none, and with which the gate judges the
            version; None for the defaults.
        precision: precision in which the version serves, and in which the gate judges it.
        intake: sources of images that the served version accepts; None for image bytes only.

    Raises:
        ValueError: the run is not in this tracker, the name is not valid, or no version serves with these settings.
        Refusal: the tracker has no LoggedModels.
    """
    check_model_name(name)
    model = _with_settings(model, generation or GenerationConfig(), precision)
    run = _run_of(model, client)
    require_logged_models(client, run.info.experiment_id)
    _create_name(name, client)
    intake = intake or ImageInputConfig()
    params = _params_of(model, intake)
    for found in finish_registrations(name, client):
        if found.run_id == run.info.run_id and params.items() <= record_of(found, client).items():
            return client.get_model_version(name, f"{found.version}")  # the same command was killed at its end
    logged = _log_model(model, name, run, client, params=params, intake=intake)
    with default_tracker(client):
        created = client.create_model_version(
            name,
            logged.model_uri,
            run_id=run.info.run_id,
            tags=_tags_of(model) | {UNFINISHED_TAG: name},
            await_creation_for=0,
            model_id=logged.model_id,
        )
    finish_registration(created, client)
    return client.get_model_version(name, f"{created.version}")


def _with_settings(model: ResolvedModel, generation: GenerationConfig, precision: Precision) -> ResolvedModel:
    check_served(generation)
    generation.check_words(model.description.max_caption_words)
    return replace(model, precision=precision, generation=generation)


def _log_model(
    model: ResolvedModel,
    name: str,
    run: Run,
    client: MlflowClient,
    *,
    params: dict[str, str],
    intake: ImageInputConfig,
) -> LoggedModel:
    """Store the model's files in a LoggedModel, and link it to its run, its metrics and their data."""
    step, run_id = model.description.step, run.info.run_id
    evaluations = _evaluations(model, run, client)
    tags = {f"{EVALUATION_TAG}.{split}": json.dumps(summary) for split, summary in evaluations.items()}
    title = f"{model.description.lineage.get('run', 'model')}-step-{step}"
    with tempfile.TemporaryDirectory(prefix="captioning-") as scratch:
        package = save_package(model, Path(scratch), generation=model.generation, intake=intake)
        logged = create_logged_model(name, run, title=title, params=params, tags=tags, client=client)
        try:
            client.log_model_artifacts(logged.model_id, f"{package}")
        except Exception:  # of the artifact store, whichever it is
            with contextlib.suppress(MlflowException):
                client.delete_logged_model(logged.model_id)
            raise
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    if logged.model_id not in {one.model_id for one in (run.outputs.model_outputs if run.outputs else ())}:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])
    metrics = [
        *checkpoint_metrics(model, run, client, model_id=logged.model_id),
        *split_metrics(run, evaluations, model_id=logged.model_id),
    ]
    client.log_batch(run_id, metrics=metrics)
    return logged


def _evaluations(model: ResolvedModel, run: Run, client: MlflowClient) -> dict[str, dict[str, Any]]:
    """Return the evaluations of a checkpoint, by split: those of the run, and of the version that it is, if any."""
    found = evaluations_of_run(run, model.description.step, client)
    if model.name:
        found |= evaluations_of(record_of(client.get_model_version(model.name, f"{model.version}"), client))
    return found


def _run_of(model: ResolvedModel, client: MlflowClient) -> Run:
    run_id = model.mlflow_run_id or ""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_about_the_request(error):
            raise
        reason = one_line(error, with_kind=False)
        raise ValueError(
            f"MLflow run {run_id or 'unknown'} of {model.folder.name} is not in this tracker ({reason}); "
            "use the --tracking.uri or --home that it was trained with"
        ) from None


def _tags_of(model: ResolvedModel) -> dict[str, str]:
    """Return the tags by which people look for versions."""
    lineage = model.description.lineage
    split = configuration_of(model).get("validation_split", "val")
    found = {"shards_digest": lineage.get("shards_digest"), "git_commit": lineage.get("git_commit"), "split": split}
    return {STATUS_TAG: "pending"} | {name: f"{value}" for name, value in found.items() if value}


def _params_of(model: ResolvedModel, intake: ImageInputConfig) -> dict[str, str]:
    """Return the settings and the lineage of a model."""
    description, served = model.description, git_state()
    return {
        FORMAT_TAG: f"{FORMAT_VERSION}",
        "step": f"{description.step}",
        "encoder": description.model.backbone,
        "decoder": description.model.decoder,
        **{f"decoder.{name}": f"{value}" for name, value in asdict(description.model.decoder_config).items()},
        "image_size_px": f"{description.model.image_size_px}",
        "max_caption_words": f"{description.max_caption_words}",
        "vocabulary_words": f"{len((model.folder / VOCABULARY).read_text().splitlines())}",
        "vocabulary_digest": description.vocabulary_digest,
        "beam_size": f"{model.generation.beam_size}",
        **{f"{GENERATION_PREFIX}{setting}": f"{value}" for setting, value in asdict(model.generation).items()},
        PRECISION_TAG: model.precision,
        **{f"intake.{setting}": f"{value}" for setting, value in asdict(intake).items()},
        **description.lineage,
        **{f"metric.{metric}": f"{value:.6f}" for metric, value in description.metrics.items()},
        **{f"package.{package}": package_version(package) for package in SERVED_PACKAGES},
        "registered_by": current_user(),
        # The commit of the code that serves, which may differ from the one that trained.
        "registered_git_commit": served["mlflow.source.git.commit"],
        "registered_git_dirty": served["git.dirty"],
    }


def _create_name(name: str, client: MlflowClient) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if not is_about_the_request(error):
            raise
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            reason = one_line(error, with_kind=False)
            raise ValueError(f"{name!r} is not a valid model name ({reason}); choose another name") from None
        if is_history(client.get_registered_model(name)):
            raise ValueError(f"{name} is the history of another model; choose another name") from None
    # Created together with the model: with authentication, MLflow lets a registered model's creator write it, so the
    # owner of the model also owns its history, before another user can take the name.
    ensure_history(name, client)
