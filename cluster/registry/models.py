"""Resolution of MODEL on the command line to a checkpoint."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import TypeAdapter

from captioning.config import Precision
from captioning.generation.config import UNRECORDED, GenerationConfig
from captioning.training.checkpoint_description import (
    CONFIG,
    CheckpointDescription,
    describe_checkpoint,
)
from cluster.errors import one_line
from cluster.registry.challenger import finish_registrations
from cluster.registry.champion import CHALLENGER, CHAMPION, reconcile_alias
from cluster.registry.logged_models import logged_model_id, record_of
from cluster.registry.safe_loading import stored_checkpoint
from cluster.runs.record import load_record, local_checkpoint
from cluster.tracking.access import is_about_the_request
from cluster.yaml_file import read_mapping

logger = logging.getLogger(__name__)

PRECISION_TAG, GENERATION_PREFIX = "precision", "generation."


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """A checkpoint, and its registered version if it has one."""

    folder: Path
    """Folder of the checkpoint on this machine."""
    description: CheckpointDescription
    name: str | None = None
    """Name in the registry; None if not registered."""
    version: str | None = None
    """Number of the version; None if not registered."""
    precision: Precision = "fp32"
    """Precision in which the model captions: the one in which its version serves, if it is registered."""
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """Settings of the search for captions with which its version serves, if it is registered, else the defaults."""
    logged_model_id: str | None = None
    """Id of the version's LoggedModel; None if it has none."""

    @property
    def mlflow_run_id(self) -> str | None:
        """Return the id of the MLflow run that trained the model; None if unknown."""
        return self.description.lineage.get("mlflow_run_id")

    def __str__(self) -> str:
        """Return version, step and run as text."""
        registered = f"{self.name} version {self.version}, " if self.name else ""
        return f"{registered}step {self.description.step} of run {self.description.lineage.get('run', 'unknown')}"


def resolve_model(model: str, client: MlflowClient) -> ResolvedModel:
    """Find the checkpoint that ``model`` names.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``runs:/ID``, or the folder of a checkpoint or run; of
            a run, the best checkpoint is used.
        client: client of the tracker and registry.

    Raises:
        FileNotFoundError: there is no such folder or checkpoint.
        ValueError: there is no such model, version or run.
    """
    if model.startswith("models:/"):
        found = find_version(model, client)
        folder, record = stored_checkpoint(found, client), record_of(found, client)
        return ResolvedModel(
            folder=folder,
            description=describe_checkpoint(folder),
            name=found.name,
            version=str(found.version),
            precision=precision_of(record),
            generation=_generation_of(record),
            logged_model_id=logged_model_id(found),
        )
    return _resolve_folder(model, _run_folder(model, client) if model.startswith("runs:/") else Path(model))


def resolve_to_read(model: str, connect: Callable[[], MlflowClient]) -> ResolvedModel:
    """Find the checkpoint that ``model`` names; the folder of a checkpoint or run is found without the tracker.

    Args:
        model: as for ``resolve_model``.
        connect: function that returns a client of the tracker and registry.

    Raises:
        FileNotFoundError, ValueError: as by ``resolve_model``.
    """
    if model.startswith(("models:/", "runs:/")):
        return resolve_model(model, connect())
    return _resolve_folder(model, Path(model))


def _resolve_folder(model: str, folder: Path) -> ResolvedModel:
    """Return the checkpoint in a folder, or the best one if the folder is a run's."""
    folder = folder.absolute()
    if (folder / "run.json").is_file():
        folder = _best_checkpoint(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"model {model} is not a folder; "
            "use models:/NAME@alias, models:/NAME/VERSION, runs:/ID or the folder of a checkpoint or run"
        )
    return ResolvedModel(folder=folder, description=describe_checkpoint(folder))


def find_version(model: str, client: MlflowClient, *, is_dry_run: bool = False) -> ModelVersion:
    """Find the registered version of ``models:/NAME@alias`` or ``models:/NAME/VERSION``.

    Args:
        model: address of the version.
        client: client of the registry.
        is_dry_run: whether to leave a registration that was killed as it is, instead of finishing it.

    Raises:
        ValueError: it is not in the registry.
    """
    name, _, alias = model.removeprefix("models:/").partition("@")
    if not alias and not name.rpartition("/")[0]:
        raise ValueError(f"{model} names no version; use models:/NAME@alias or models:/NAME/VERSION")
    if alias == CHAMPION:
        return _find_champion(name, client)
    try:
        if alias == CHALLENGER and not is_dry_run:
            finish_registrations(name, client)
        if alias:
            return client.get_model_version_by_alias(name, alias)
        name, _, number = name.rpartition("/")
        return client.get_model_version(name, number)
    except MlflowException as error:
        if not is_about_the_request(error):
            raise
        raise ValueError(
            f"{model} is not in the registry ({one_line(error, with_kind=False)}); captioning models lists the versions"
        ) from None


def _find_champion(name: str, client: MlflowClient) -> ModelVersion:
    state = reconcile_alias(name, client)
    if state.champion is None:
        raise ValueError(f"{name} has no champion yet; captioning promote {name} makes one")
    if state.is_lost:
        raise ValueError(f"{state.fault}; captioning rollback {name} restores the previous champion")
    if state.fault:
        logger.warning("%s", state.fault)
    return client.get_model_version(name, state.champion)


def precision_of(tags: Mapping[str, str]) -> Precision:
    """Return the precision in which a version serves, by its tags; versions of earlier releases serve in fp32."""
    return "bf16" if tags.get(PRECISION_TAG) == "bf16" else "fp32"


def _generation_of(record: Mapping[str, str]) -> GenerationConfig:
    """Return the settings of the search that a version was registered with; earlier releases recorded none."""
    # A beam size alone was that of requests to the server, in which the gate did not judge.
    given = {one.name: record.get(f"{GENERATION_PREFIX}{one.name}") for one in fields(GenerationConfig)}
    try:
        recorded = {**UNRECORDED, **{name: text for name, text in given.items() if text}}
        return TypeAdapter(GenerationConfig).validate_python(recorded)
    except ValueError as error:
        logger.warning(
            "the settings of the search are not those that a release records (%s); using those of earlier releases",
            one_line(error),
        )
        return GenerationConfig(**UNRECORDED)


def _run_folder(model: str, client: MlflowClient) -> Path:
    try:
        run = client.get_run(model.removeprefix("runs:/"))
    except MlflowException as error:
        if not is_about_the_request(error):
            raise
        raise ValueError(
            f"{model} is not in the tracker ({one_line(error, with_kind=False)}); look up the run's id in MLflow"
        ) from None
    if "run_folder" not in run.data.tags:
        raise ValueError(f"{model} is not a training run; use a run that captioning train created")
    return Path(run.data.tags["run_folder"])


def _best_checkpoint(run_folder: Path) -> Path:
    record = load_record(run_folder)
    if not record or not record.best:
        raise FileNotFoundError(f"{run_folder} holds no committed checkpoint; train the run first")
    return local_checkpoint(run_folder, record, record.best)


def configuration_of(model: ResolvedModel) -> dict[str, Any]:
    """Return the resolved configuration that a model was trained with."""
    return read_mapping(model.folder / CONFIG, f"{model.folder / CONFIG}")


def shards_of(model: ResolvedModel) -> str:
    """Return the location of the shard set that a model was trained on.

    Raises:
        ValueError: the model's configuration does not name it.
    """
    location = configuration_of(model).get("shards")
    if not location:
        raise ValueError(f"the configuration of {model} names no shard set; pass one with --shards")
    return location
