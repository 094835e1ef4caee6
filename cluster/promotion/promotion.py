"""Changes of a model's champion: promotion by the gate, promotion against it, and rollback to an earlier champion."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cluster.errors import GateRefusal
from cluster.registry.champion import CHALLENGER, ChampionState, reconcile_alias
from cluster.registry.history import Change, claim
from cluster.registry.models import ResolvedModel, find_version, resolve_model

if TYPE_CHECKING:  # it loads torch, which going back in a hurry does without
    from cluster.promotion.gate import Judgement

logger = logging.getLogger(__name__)

Judge = Callable[[ResolvedModel, ResolvedModel | None], "Judgement"]
"""Compares a challenger with the champion, or with none; a ``Gate``, or what a test puts in its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """Outcome of an attempt to promote a version."""

    name: str
    is_promoted: bool
    """Or would be, in a dry run."""
    change: Change
    judgement: "Judgement"


def promote(
    name: str,
    client: MlflowClient,
    judge: Judge,
    *,
    version: int | None = None,
    forced_because: str | None = None,
    is_dry_run: bool = False,
) -> Promotion:
    """Make a version the champion if it is better; should the champion change meanwhile, it is judged again.

    Args:
        name: the model's name in the registry.
        client: the registry's client.
        judge: the gate, which compares the challenger with the champion.
        version: number of the version to promote; the challenger's if not given.
        forced_because: reason to promote the version whatever the judgement; None if the judgement decides.
        is_dry_run: whether the registry stays as it is.

    Raises:
        GateRefusal: it is the champion already.
        ValueError: there is no such model or version, or the champion is gone, and it is not forced.
        RuntimeError: MLflow does not take the change.
    """
    model = f"models:/{name}/{version}" if version else f"models:/{name}@{CHALLENGER}"
    found = find_version(model, client)
    challenger = resolve_model(f"models:/{name}/{found.version}", client)
    while True:
        state = reconcile_alias(name, client, is_dry_run=is_dry_run)
        if state.champion == challenger.version and not state.is_lost:
            raise GateRefusal(f"{name} version {state.champion} is the champion already")
        judgement = judge(challenger, _champion(state, client, is_forced=forced_because is not None))
        change = Change(
            version=str(found.version),
            over=state.champion,
            kind="promoted" if forced_because is None else "forced",
            reason=forced_because or judgement.reasons[0],  # the others are in the evidence
            evidence=judgement.evidence,
            source=found.source or "",
        )
        is_promoted = judgement.is_passed or forced_because is not None
        if is_dry_run or not is_promoted:
            return Promotion(name=name, is_promoted=is_promoted, change=change, judgement=judgement)
        if counted := _take(change, state, client):
            return Promotion(name=name, is_promoted=True, change=counted, judgement=judgement)
        logger.warning("the champion of %s has changed meanwhile; version %s is judged again", name, change.version)


def rollback(
    name: str, client: MlflowClient, *, to: int | None = None, reason: str = "", is_dry_run: bool = False
) -> Change:
    """Make an earlier champion the champion again; return the change.

    Args:
        name: the model's name in the registry.
        client: the registry's client.
        to: number of the earlier champion; the one that the present champion was promoted over if not given.
        reason: text for the history.
        is_dry_run: whether the registry stays as it is.

    Raises:
        ValueError: there is no such version, or it was never champion.
        RuntimeError: somebody else has changed the champion at the same time, or MLflow does not take the change.
    """
    state = reconcile_alias(name, client, is_dry_run=is_dry_run)
    version = _before(state, client) if to is None else str(to)
    if state.changes and state.champion == version and not state.is_lost:
        return state.changes[-1]
    if version not in {one for change in state.changes for one in (change.version, change.over)}:
        raise ValueError(
            f"version {version} was never champion of {name}; captioning promote {name} --version {version} judges it"
        )
    found = find_version(f"models:/{name}/{version}", client)
    if _is_another(found, state.changes):
        raise ValueError(
            f"version {version} of {name} is another one than was champion under this number; "
            f"captioning promote {name} --version {version} judges it"
        )
    change = Change(
        version=version,
        over=state.champion,
        kind="rolled back",
        reason=reason or "no reason given",
        source=found.source or "",
    )
    if is_dry_run:
        return change
    if counted := _take(change, state, client):
        return counted
    now = reconcile_alias(name, client)
    if now.champion == version:  # somebody else has rolled back to it
        return now.changes[-1]
    raise RuntimeError(
        f"version {now.champion} has become champion of {name} meanwhile, by {now.changes[-1].by}; "
        f"look at captioning history {name}, then run the command again if it is still due"
    )


def _champion(state: ChampionState, client: MlflowClient, *, is_forced: bool) -> ResolvedModel | None:
    """Return the champion to compare with; None if there is none, or if it is gone and the promotion is forced."""
    if state.champion is None:
        return None
    if not state.is_lost:
        return resolve_model(f"models:/{state.name}/{state.champion}", client)
    if is_forced:
        logger.warning("%s; nothing is compared with it", state.fault)
        return None
    raise ValueError(
        f"{state.fault}, so that nothing can be compared with it; captioning rollback {state.name} takes the "
        "one before, or --force with --reason this one"
    )


def _take(change: Change, state: ChampionState, client: MlflowClient) -> Change | None:
    """Write the change to the history and move the alias; return it as stored, or None if another came first."""
    counted = claim(state.name, change, client, after=state.last, page=_page(change))
    if counted:
        after = reconcile_alias(state.name, client, is_quiet=True)
        if after.fault:
            raise RuntimeError(after.fault)
    return counted


def _page(change: Change) -> str:
    """Return a change as Markdown, with the gate's table."""
    text = f"Version {change.version}, {change.kind} over {change.over or 'none'}: {change.reason}"
    criteria = change.evidence["checks"] if change.evidence else []
    if not criteria:
        return text
    lines = [list(criteria[0]), ["---"] * len(criteria[0]), *(criterion.values() for criterion in criteria)]
    table = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([text, "", *table])


def _line(changes: Sequence[Change]) -> list[str]:
    """Return the versions that lead to the champion, each promoted over the one before; a rollback cuts the line."""
    line = [changes[0].over] if changes and changes[0].over else []
    for change in changes:
        if change.kind == "rolled back" and change.version in line:
            del line[line.index(change.version) + 1 :]
        else:
            line.append(change.version)
    return line


def _is_another(found: ModelVersion, changes: Sequence[Change]) -> bool:
    """Return whether a version only shares its number with a champion: the model's name was deleted and made anew."""
    sources = {change.source for change in changes if change.version == str(found.version)}
    return bool(sources) and found.source not in sources


def _before(state: ChampionState, client: MlflowClient) -> str:
    """Return the last champion before the present one that is still in the registry.

    Raises:
        ValueError: there is none.
    """
    versions = client.search_model_versions(f"name = '{state.name}'")
    present = {str(found.version) for found in versions if not _is_another(found, state.changes)}
    earlier = [version for version in _line(state.changes)[:-1] if version in present - {state.champion}]
    if not earlier:
        raise ValueError(
            f"{state.name} has no champion before version {state.champion}; "
            f"captioning models {state.name} lists versions, captioning promote judges one"
        )
    return earlier[-1]
