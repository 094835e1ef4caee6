"""MODEL on the command line -> the checkpoint that it names."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from captioning.training.checkpoint_description import (
    CONFIG,
    CheckpointDescription,
    describe_checkpoint,
)
from cluster.errors import one_line
from cluster.registry.champion import CHAMPION, reconcile_alias
from cluster.registry.safe_loading import stored_checkpoint
from cluster.runs.record import load_record, local_checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """The checkpoint that MODEL names, and its registered version, if it has one."""

    folder: Path
    description: CheckpointDescription
    name: str | None = None
    version: str | None = None

    @property
    def mlflow_run_id(self) -> str | None:
        """Return the MLflow run that trained it, if it is known."""
        return self.description.lineage.get("mlflow_run_id")

    def __str__(self) -> str:
        """Say which model it is."""
        registered = f"{self.name} version {self.version}, " if self.name else ""
        return f"{registered}step {self.description.step} of run {self.description.lineage.get('run', 'unknown')}"


def resolve_model(model: str, client: MlflowClient) -> ResolvedModel:
    """Find the checkpoint of ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``runs:/ID``, or a folder.

    Raises:
        FileNotFoundError: there is no such folder or checkpoint.
        ValueError: there is no such model, version or run.
    """
    if model.startswith("models:/"):
        found = find_version(model, client)
        folder = stored_checkpoint(found, client)
        return ResolvedModel(
            folder=folder,
            description=describe_checkpoint(folder),
            name=found.name,
            version=str(found.version),
        )
    folder = _best_checkpoint(_run_folder(model, client)) if model.startswith("runs:/") else Path(model).absolute()
    if (folder / "run.json").is_file():
        folder = _best_checkpoint(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"model {model} is no folder; "
            "use models:/NAME@alias, models:/NAME/VERSION, runs:/ID or a checkpoint's folder"
        )
    return ResolvedModel(folder=folder, description=describe_checkpoint(folder))


def find_version(model: str, client: MlflowClient) -> ModelVersion:
    """Find the registered version of ``models:/NAME@alias`` or ``models:/NAME/VERSION``.

    Raises:
        ValueError: it is not in the registry.
    """
    name, _, alias = model.removeprefix("models:/").partition("@")
    if alias == CHAMPION:
        return _find_champion(name, client)
    try:
        if alias:
            return client.get_model_version_by_alias(name, alias)
        name, _, number = name.rpartition("/")
        return client.get_model_version(name, number)
    except MlflowException as error:
        raise ValueError(
            f"{model} is not in the registry ({one_line(error, with_kind=False)}); captioning models lists what is"
        ) from None


def _find_champion(name: str, client: MlflowClient) -> ModelVersion:
    state = reconcile_alias(name, client)
    if state.champion is None:
        raise ValueError(f"{name} has no champion yet; captioning promote {name} makes one")
    if state.is_lost:
        raise ValueError(f"{state.fault}; captioning rollback {name} takes the one before")
    if state.fault:
        logger.warning("%s", state.fault)
    return client.get_model_version(name, state.champion)


def _run_folder(model: str, client: MlflowClient) -> Path:
    try:
        run = client.get_run(model.removeprefix("runs:/"))
    except MlflowException as error:
        raise ValueError(
            f"{model} is not in the tracker ({one_line(error, with_kind=False)}); look it up in MLflow"
        ) from None
    if "run_folder" not in run.data.tags:
        raise ValueError(f"{model} is no training run; use a run that captioning train made")
    return Path(run.data.tags["run_folder"])


def _best_checkpoint(run_folder: Path) -> Path:
    record = load_record(run_folder)
    if not record or not record.best:
        raise FileNotFoundError(f"{run_folder} holds no checkpoint that counts; train the run first")
    return local_checkpoint(run_folder, record, record.best)


def configuration_of(model: ResolvedModel) -> dict[str, Any]:
    """Return the resolved configuration that a model was trained with."""
    return yaml.safe_load((model.folder / CONFIG).read_text(encoding="utf-8")) or {}


def shards_of(model: ResolvedModel) -> str:
    """Return where the shard set lies that a model was trained on.

    Raises:
        ValueError: its configuration does not tell.
    """
    location = configuration_of(model).get("shards")
    if not location:
        raise ValueError(f"the configuration of {model} names no shard set; give one by --shards")
    return location
