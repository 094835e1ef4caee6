"""Changes of a model's champion: promotion through the gate, forced promotion, and rollback to an earlier champion."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cluster.errors import GateRefusal
from cluster.registry.champion import CHALLENGER, ChampionState, reconcile_alias
from cluster.registry.history import Change, claim
from cluster.registry.logged_models import record_of
from cluster.registry.models import ResolvedModel, find_version, resolve_model
from cluster.tracking.client import versions_of
from cluster.tracking.markdown import escaped

if TYPE_CHECKING:  # it imports torch, which would delay a rollback by seconds
    from cluster.promotion.gate import Judgement

logger = logging.getLogger(__name__)

_PAGE_TITLES = {"name": "criterion", "wanted": "required", "is_passed": "passed"}

Judge = Callable[[ResolvedModel, ResolvedModel | None], "Judgement"]
"""Function that compares a challenger with the champion, or None without a champion; a ``Gate`` outside of tests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """Outcome of an attempt to promote a version."""

    name: str
    """The model's name in the registry."""
    is_promoted: bool
    """Whether the version became the champion; in a dry run, whether it would have."""
    change: Change
    """Change of champion, stored if the version was promoted."""
    judgement: "Judgement"
    """Decision of the gate, which a forced promotion overrides."""


def promote(
    name: str,
    client: MlflowClient,
    judge: Judge,
    *,
    version: int | None = None,
    forced_because: str | None = None,
    is_dry_run: bool = False,
) -> Promotion:
    """Make a version the champion if the gate passes it; judge it again if the champion changes in the meantime.

    Args:
        name: model's name in the registry.
        client: client of the registry.
        judge: gate that compares the challenger with the champion.
        version: number of the version to promote; None for the one with the alias ``challenger``.
        forced_because: reason to promote the version whatever the gate decides; None if the gate decides.
        is_dry_run: whether to leave the registry unchanged.

    Raises:
        GateRefusal: the version is already the champion.
        ValueError: there is no such model or version; or the champion was deleted, and the promotion is not forced.
        RuntimeError: MLflow did not store the change, or did not move the alias.
    """
    model = f"models:/{name}/{version}" if version else f"models:/{name}@{CHALLENGER}"
    found = find_version(model, client, is_dry_run=is_dry_run)
    challenger = resolve_model(f"models:/{name}/{found.version}", client)
    while True:
        state = reconcile_alias(name, client, is_dry_run=is_dry_run)
        if state.champion == challenger.version and not state.is_lost:
            raise GateRefusal(f"{name} version {state.champion} is already the champion")
        judgement = judge(challenger, _champion(state, client, is_forced=forced_because is not None))
        change = Change(
            version=str(found.version),
            over=state.champion,
            kind="promoted" if forced_because is None else "forced",
            reason=forced_because or judgement.reasons[0],  # the evidence has all of them
            evidence=judgement.evidence,
            source=found.source or "",
        )
        is_promoted = judgement.is_passed or forced_because is not None
        if is_dry_run or not is_promoted:
            return Promotion(name=name, is_promoted=is_promoted, change=change, judgement=judgement)
        if counted := _take(change, state, client):
            return Promotion(name=name, is_promoted=True, change=counted, judgement=judgement)
        logger.warning(
            "the champion of %s changed in the meantime; comparing version %s with the new champion",
            name,
            change.version,
        )


def rollback(
    name: str, client: MlflowClient, *, to: int | None = None, reason: str = "", is_dry_run: bool = False
) -> Change:
    """Make an earlier champion the champion again; return the change.

    Args:
        name: model's name in the registry.
        client: client of the registry.
        to: number of the earlier champion; None for the one that the current champion was promoted over.
        reason: reason for the history.
        is_dry_run: whether to leave the registry unchanged.

    Raises:
        ValueError: there is no such version, it was never champion, or its LoggedModel was deleted.
        RuntimeError: another process changed the champion at the same time; or MLflow did not store the change, or did
            not move the alias.
    """
    state = reconcile_alias(name, client, is_dry_run=is_dry_run)
    version = _before(state, client) if to is None else str(to)
    if state.changes and state.changes[-1].version == version and not state.is_lost:
        return state.changes[-1]
    if version not in {one for change in state.changes for one in (change.version, change.over)}:
        raise ValueError(
            f"version {version} was never champion of {name}; "
            f"captioning promote {name} --version {version} promotes it if the gate passes it"
        )
    source = _source_of_earlier(name, version, state, client)
    change = Change(
        version=version,
        over=state.champion,
        kind="rolled back",
        reason=reason or "no reason given",
        source=source,
    )
    if is_dry_run:
        return change
    if counted := _take(change, state, client):
        return counted
    now = reconcile_alias(name, client)
    if now.champion == version:  # another process has rolled back to the same version
        return now.changes[-1]
    raise RuntimeError(
        f"version {now.champion} became the champion of {name} in the meantime, by {now.changes[-1].by}; "
        f"look at captioning history {name}, then run the command again if it is still needed"
    )


def _source_of_earlier(name: str, version: str, state: ChampionState, client: MlflowClient) -> str:
    """Return the source of a version that was champion; refuse one that nothing could load, or that is another now."""
    found = find_version(f"models:/{name}/{version}", client)
    record_of(found, client)
    if _is_another(found, state.changes):
        raise ValueError(
            f"version {version} of {name} is not the one that was champion: the model was deleted and created again; "
            f"captioning promote {name} --version {version} promotes it if the gate passes it"
        )
    return found.source or ""


def _champion(state: ChampionState, client: MlflowClient, *, is_forced: bool) -> ResolvedModel | None:
    """Return the champion to compare with; None if there is none, or if it was deleted and the promotion is forced."""
    if state.champion is None:
        return None
    if not state.is_lost:
        return resolve_model(f"models:/{state.name}/{state.champion}", client)
    if is_forced:
        logger.warning("%s; promoting without a comparison", state.fault)
        return None
    raise ValueError(
        f"{state.fault}, so no challenger can be compared with it; captioning rollback {state.name} restores the "
        "previous champion, --force with --reason promotes this version without a comparison"
    )


def _take(change: Change, state: ChampionState, client: MlflowClient) -> Change | None:
    """Write the change to the history and move the alias; return the stored change, or None if another came first."""
    counted = claim(state.name, change, client, after=state.last, page=_page(change))
    if counted:
        after = reconcile_alias(state.name, client, is_quiet=True)
        if after.fault:
            raise RuntimeError(after.fault)
    return counted


def _page(change: Change) -> str:
    """Return a change as Markdown, with the table of the gate's criteria."""
    text = f"Version {change.version}, {change.kind} over {change.over or 'none'}: {escaped(change.reason)}"
    criteria = change.evidence["checks"] if change.evidence else []
    if not criteria:
        return text
    titles = [_PAGE_TITLES.get(name, name) for name in criteria[0]]
    rows = [[{True: "yes", False: "no"}.get(cell, cell) for cell in criterion.values()] for criterion in criteria]
    head, *body = ["| " + " | ".join(map(escaped, line)) + " |" for line in (titles, *rows)]
    return "\n".join([text, "", head, "|" + " --- |" * len(titles), *body])


def _line(changes: Sequence[Change]) -> list[str]:
    """Return the versions that lead to the champion, each promoted over the one before it.

    A rollback removes the versions after the one that it goes back to, so that a second rollback goes back further.
    """
    line = [changes[0].over] if changes and changes[0].over else []
    for change in changes:
        if change.kind == "rolled back" and change.version in line:
            del line[line.index(change.version) + 1 :]
        else:
            line.append(change.version)
    return line


def _is_another(found: ModelVersion, changes: Sequence[Change]) -> bool:
    """Return whether a version only shares its number with a former champion.

    This happens after the model is deleted and created again, because MLflow then numbers its versions from 1.
    """
    sources = {change.source for change in changes if change.version == str(found.version)}
    return bool(sources) and found.source not in sources


def _before(state: ChampionState, client: MlflowClient) -> str:
    """Return the last champion before the present one that is still in the registry.

    Raises:
        ValueError: there is none.
    """
    versions = versions_of(state.name, client)
    present = {str(found.version) for found in versions if not _is_another(found, state.changes)}
    earlier = [version for version in _line(state.changes)[:-1] if version in present - {state.champion}]
    if not earlier:
        before = f" before version {state.champion}" if state.champion else ""
        raise ValueError(
            f"{state.name} has no champion{before}; "
            f"captioning models {state.name} lists its versions, captioning promote promotes one"
        )
    return earlier[-1]
