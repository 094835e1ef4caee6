"""List of the registered versions, with aliases and scores."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cluster.registry.champion import ChampionState, reconcile_alias
from cluster.registry.history import is_history
from cluster.registry.scores import evaluations_of
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


def _list_model(name: str, client: MlflowClient, *, is_dry_run: bool) -> list[VersionSummary]:
    state = reconcile_alias(name, client, is_dry_run=is_dry_run)
    if state.fault:
        logger.warning("%s", state.fault)
    aliases = client.get_registered_model(name).aliases  # a search for versions does not return them
    return [_summarize(version, aliases, state) for version in reversed(versions_of(name, client))]


def _model_names(client: MlflowClient) -> list[str]:
    names: list[str] = []
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        names += [model.name for model in page if not is_history(model)]
        token = page.token
        if not token:
            return sorted(names)


def _summarize(found: ModelVersion, aliases: Mapping[str, object], state: ChampionState) -> VersionSummary:
    version = str(found.version)
    tags = found.tags
    return VersionSummary(
        name=found.name,
        version=version,
        aliases=tuple(sorted(alias for alias, number in aliases.items() if str(number) == version)),
        run=tags.get("run", ""),
        step=tags.get("step", ""),
        registered_at=utc(found.creation_timestamp),
        scores=evaluations_of(tags),
        changes=tuple(change.entry for change in state.changes if change.version == version),
    )
