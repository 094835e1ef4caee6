"""List of the registered versions, with aliases and scores."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cluster.errors import Refusal
from cluster.registry.challenger import finish_registrations
from cluster.registry.champion import ChampionState, reconcile_alias
from cluster.registry.evaluations import evaluations_of
from cluster.registry.history import is_history
from cluster.registry.logged_models import record_of
from cluster.registry.models import ResolvedModel
from cluster.tracking.access import tracker_line
from cluster.tracking.client import utc, versions_of

logger = logging.getLogger(__name__)

GATE_METRIC = "CIDEr-D"


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionSummary:
    """Summary of a registered version."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run: str
    """Name of the training run; empty if unknown."""
    step: str
    """Step of the checkpoint; empty if unknown."""
    registered_at: str
    """Time of the registration, ISO 8601, UTC."""
    scores: dict[str, dict[str, Any]]
    """Evaluations, by split."""
    changes: tuple[int, ...]
    """Numbers of the history's entries that made it champion."""


def list_versions(
    client: MlflowClient, name: str | None = None, *, is_dry_run: bool = False
) -> Sequence[VersionSummary]:
    """Return the registered versions, newest first within each model, after moving the aliases to the champions.

    Args:
        client: client of the registry.
        name: name of one model; None for all models.
        is_dry_run: whether to leave the aliases unchanged.

    Raises:
        ValueError: there is no model of this name, or it has no versions.
    """
    found: list[VersionSummary] = []
    for one in [name] if name else _model_names(client):
        try:
            summaries = _list_model(one, client, is_dry_run=is_dry_run)
        except (ValueError, MlflowException) as error:
            if name:
                raise
            logger.warning("model %s is left out: %s", one, tracker_line(error))
            continue
        if name and not summaries:
            raise ValueError(f"model {one} has no versions; captioning register MODEL {one} creates one")
        found += summaries
    return found


def version_of(model: ResolvedModel, name: str, client: MlflowClient) -> ModelVersion | None:
    """Return the version that a checkpoint was registered as before; None if there is none.

    Args:
        model: the checkpoint.
        name: name of the registered model.
        client: client of the registry.
    """
    finish_registrations(name, client)
    known = (found for found in versions_of(name, client) if found.run_id == model.mlflow_run_id)
    step = f"{model.description.step}"
    return next((found for found in known if _record(found, client).get("step") == step), None)


def _list_model(name: str, client: MlflowClient, *, is_dry_run: bool) -> list[VersionSummary]:
    state = reconcile_alias(name, client, is_dry_run=is_dry_run)
    versions = versions_of(name, client)
    if not is_dry_run and finish_registrations(name, client, versions):
        versions = versions_of(name, client)
    if state.fault:
        logger.warning("%s", state.fault)
    aliases = client.get_registered_model(name).aliases  # a search for versions does not return them
    return [_summarize(found, _record(found, client), aliases, state) for found in reversed(versions)]


def _record(found: ModelVersion, client: MlflowClient) -> dict[str, str]:
    """Return what is recorded of a version; of one whose LoggedModel was deleted, its tags, with a warning."""
    try:
        return record_of(found, client)
    except Refusal as refusal:
        logger.warning("%s", refusal)
        return dict(found.tags)


def _model_names(client: MlflowClient) -> list[str]:
    names: list[str] = []
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        names += [model.name for model in page if not is_history(model)]
        token = page.token
        if not token:
            return sorted(names)


def _summarize(
    found: ModelVersion, record: Mapping[str, str], aliases: Mapping[str, object], state: ChampionState
) -> VersionSummary:
    version = str(found.version)
    return VersionSummary(
        name=found.name,
        version=version,
        aliases=tuple(sorted(alias for alias, number in aliases.items() if str(number) == version)),
        run=record.get("run", ""),
        step=record.get("step", ""),
        registered_at=utc(found.creation_timestamp),
        scores=evaluations_of(record),
        changes=tuple(change.entry for change in state.changes if change.version == version),
    )
