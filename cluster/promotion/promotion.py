"""A model's champion, changed: by the gate's judgement, against it, or back to an earlier one."""

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
"""Compares a challenger with the champion, or with none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """What came of a challenger."""

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
        name: of the model.
        client: of the registry.
        judge: what compares the challenger with the champion: a ``Gate``.
        version: to promote; the challenger if not given.
        forced_because: promote it whatever the judgement, for this reason.
        is_dry_run: change nothing.

    Raises:
        GateRefusal: it is the champion already.
        ValueError: there is no such model or version, or the champion is gone, and it is not forced.
        RuntimeError: MLflow does not take the change.
    """
    model = f"models:/{name}/{version}" if version else f"models:/{name}@{CHALLENGER}"
    found = find_version(model, client)
    challenger = resolve_model(f"models:/{name}/{found.version}", client)
    while True:
        standing = reconcile_alias(name, client, is_dry_run=is_dry_run)
        if standing.champion == challenger.version and not standing.is_lost:
            raise GateRefusal(f"{name} version {standing.champion} is the champion already")
        judgement = judge(challenger, _champion(standing, client, is_forced=forced_because is not None))
        change = Change(
            version=str(found.version),
            over=standing.champion,
            kind="promoted" if forced_because is None else "forced",
            reason=forced_because or judgement.reasons[0],  # the others are in the evidence
            evidence=judgement.evidence,
            source=found.source or "",
        )
        is_promoted = judgement.is_passed or forced_because is not None
        if is_dry_run or not is_promoted:
            return Promotion(name=name, is_promoted=is_promoted, change=change, judgement=judgement)
        if counted := _take(change, standing, client):
            return Promotion(name=name, is_promoted=True, change=counted, judgement=judgement)
        logger.warning("the champion of %s has changed meanwhile; version %s is judged again", name, change.version)


def rollback(
    name: str, client: MlflowClient, *, to: int | None = None, reason: str = "", is_dry_run: bool = False
) -> Change:
    """Make an earlier champion the champion again; return the change.

    Args:
        name: of the model.
        client: of the registry.
        to: version; the one that the present champion was promoted over if not given.
        reason: for the record.
        is_dry_run: change nothing.

    Raises:
        ValueError: there is no such version, or it was never champion.
        RuntimeError: somebody else has changed the champion at the same time, or MLflow does not take the change.
    """
    standing = reconcile_alias(name, client, is_dry_run=is_dry_run)
    version = _before(standing, client) if to is None else str(to)
    if standing.changes and standing.champion == version and not standing.is_lost:
        return standing.changes[-1]
    if version not in {one for change in standing.changes for one in (change.version, change.over)}:
        raise ValueError(
            f"version {version} was never champion of {name}; captioning promote {name} --version {version} judges it"
        )
    found = find_version(f"models:/{name}/{version}", client)
    if _is_another(found, standing.changes):
        raise ValueError(
            f"version {version} of {name} is another one than was champion under this number; "
            f"captioning promote {name} --version {version} judges it"
        )
    change = Change(
        version=version,
        over=standing.champion,
        kind="rolled back",
        reason=reason or "no reason given",
        source=found.source or "",
    )
    if is_dry_run:
        return change
    if counted := _take(change, standing, client):
        return counted
    now = reconcile_alias(name, client)
    if now.champion == version:  # somebody else has rolled back to it
        return now.changes[-1]
    raise RuntimeError(
        f"version {now.champion} has become champion of {name} meanwhile, by {now.changes[-1].by}; "
        f"look at captioning history {name}, then run the command again if it is still due"
    )


def _champion(standing: ChampionState, client: MlflowClient, *, is_forced: bool) -> ResolvedModel | None:
    """Return the champion to compare with; forced, one that is gone is left out."""
    if standing.champion is None:
        return None
    if not standing.is_lost:
        return resolve_model(f"models:/{standing.name}/{standing.champion}", client)
    if is_forced:
        logger.warning("%s; nothing is compared with it", standing.fault)
        return None
    raise ValueError(
        f"{standing.fault}, so that nothing can be compared with it; captioning rollback {standing.name} takes the "
        "one before, or --force with --reason this one"
    )


def _take(change: Change, standing: ChampionState, client: MlflowClient) -> Change | None:
    """Claim the change and move the alias; return the change as it counts, or None if another was quicker."""
    counted = claim(standing.name, change, client, after=standing.last, page=_page(change))
    if counted:
        after = reconcile_alias(standing.name, client, is_quiet=True)
        if after.fault:
            raise RuntimeError(after.fault)
    return counted


def _page(change: Change) -> str:
    """Return a change as Markdown, with the gate's table."""
    text = f"Version {change.version}, {change.kind} over {change.over or 'none'}: {change.reason}"
    checks = change.evidence["checks"] if change.evidence else []
    if not checks:
        return text
    lines = [list(checks[0]), ["---"] * len(checks[0]), *(check.values() for check in checks)]
    table = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([text, "", *table])


def _line(changes: Sequence[Change]) -> list[str]:
    """Return the line of champions, each promoted over the one before it; what was rolled back is off it."""
    line = [changes[0].over] if changes and changes[0].over else []
    for change in changes:
        if change.kind == "rolled back" and change.version in line:
            del line[line.index(change.version) + 1 :]
        else:
            line.append(change.version)
    return line


def _is_another(found: ModelVersion, changes: Sequence[Change]) -> bool:
    """Return whether a version has the number of a champion, and is not that one: its name was made anew."""
    sources = {change.source for change in changes if change.version == str(found.version)}
    return bool(sources) and found.source not in sources


def _before(standing: ChampionState, client: MlflowClient) -> str:
    """Return the champion before the present one, of those that are still in the registry.

    Raises:
        ValueError: there is none.
    """
    versions = client.search_model_versions(f"name = '{standing.name}'")
    present = {str(found.version) for found in versions if not _is_another(found, standing.changes)}
    earlier = [version for version in _line(standing.changes)[:-1] if version in present - {standing.champion}]
    if not earlier:
        raise ValueError(
            f"{standing.name} has no champion before version {standing.champion}; "
            f"captioning models {standing.name} lists versions, captioning promote judges one"
        )
    return earlier[-1]
