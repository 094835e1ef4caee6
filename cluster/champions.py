"""Who is champion of a model, and every change of it: the ledger decides, the alias follows.

MLflow moves an alias for whoever asks last, and keeps no record of it. What it does only once is to number a model's
versions: a version is one insert, with all its tags, under the unique key (name, number); its number is one more than
the highest, so that nobody sees a version before he could see those below it. So NAME's ledger is the registered model
NAME.history, whose versions are its entries, in one order for all who read them. Every entry says after which entry it
was decided. The first that says so counts; one that says the same later never counts, and whoever wrote it decides
again. An entry that a client sends twice, because the answer was lost, counts once for the same reason.

So an entry is the change of champion, and is whole or absent: a process that is killed has changed the champion or has
not, and the next command moves the alias. Who has moved the alias reads the ledger once more before he goes, so that
among processes which live the last one to move it leaves it in line.

An alias that points elsewhere is set right, with a warning, even if a person moved it by hand. That looks the same as
what a killed process leaves behind; a change that no gate saw has no author, no reason and no evidence; and the warning
names the command that makes it in one line, with all three. A model without a ledger keeps the alias it has, which
becomes the champion that its first entry replaces.
"""

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from cluster.tracking import current_user, one_line, utc

logger = logging.getLogger(__name__)

CHALLENGER, CHAMPION = "challenger", "champion"
_LEDGER_TAG = "history_of"
_PAGE_LENGTH = 1000
_DESCRIPTION_LENGTH = 5000  # a column of MLflow's, where PostgreSQL refuses more


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A change of champion."""

    version: str
    """The champion from then on."""
    over: str | None
    """The champion before."""
    kind: Literal["promoted", "forced", "rolled back"]
    reason: str
    evidence: dict[str, Any] | None = None
    """What the gate found."""
    source: str = ""
    """Where the version's files lie, by which it is known should the name be deleted and made anew."""
    by: str = ""
    entry: int = 0
    """Its number in the ledger."""
    at: str = ""
    """When the tracker took it, UTC, ISO 8601."""
    claim: str = ""
    """Unique, by which whoever made it finds it again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What holds of a model's champion."""

    name: str
    changes: tuple[Change, ...]
    """Those that count, first to last."""
    last: int
    """The entry that decides, after which the next one must say that it comes; 0 if there is none."""
    alias: str | None
    """The version that the alias points to."""
    fault: str = ""
    """Why the alias is not in line, if so."""
    is_lost: bool = False
    """Whether the champion is no longer in the registry."""

    @property
    def champion(self) -> str | None:
        """Return the version that is the champion."""
        return self.changes[-1].version if self.changes else self.alias


def ledger_name(name: str) -> str:
    """Return the registered model that is a model's ledger."""
    return f"{name}.history"


def is_ledger(model: RegisteredModel) -> bool:
    """Return whether a registered model is another's ledger."""
    return _LEDGER_TAG in model.tags


def settle(name: str, client: MlflowClient, *, is_dry_run: bool = False, is_quiet: bool = False) -> Standing:
    """Read who is champion, and bring the alias in line with it; if that fails, what is returned tells why.

    Args:
        name: of the model.
        client: of the registry.
        is_dry_run: only say what would be moved.
        is_quiet: say nothing, for the caller has just changed the champion.

    Raises:
        ValueError: there is no such model.
    """
    while True:
        standing = read_standing(name, client)
        if standing.champion == standing.alias:
            return standing
        if fault := _loss_of(standing, client):
            return replace(standing, fault=fault, is_lost=True)
        if not is_quiet:
            _warn(standing, is_dry_run=is_dry_run)
        if is_dry_run:
            return standing
        try:
            client.set_registered_model_alias(name, CHAMPION, standing.champion or "")
        except MlflowException as error:
            fault = f"version {standing.champion} is the champion of {name}, and its alias cannot be moved there"
            return replace(standing, fault=f"{fault} ({one_line(error)}); the next command tries again")


def read_standing(name: str, client: MlflowClient) -> Standing:
    """Read the ledger, then the alias; in the other order, one could miss that the alias is behind.

    Raises:
        ValueError: there is no such model.
    """
    try:
        changes, last = counting(_entries(name, client))
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        raise ValueError(
            f"model {name} cannot be read from the registry ({one_line(error)}); captioning models lists what can"
        ) from None
    alias = aliases.get(CHAMPION)
    return Standing(name=name, changes=changes, last=last, alias=None if alias is None else str(alias))


def counting(entries: Sequence[tuple[int, Change]]) -> tuple[tuple[Change, ...], int]:
    """Return the changes that count, and the entry that the next change must follow.

    An entry that was deleted by hand counted if another was decided after it.

    Args:
        entries: each with the entry after which it was decided.
    """
    after = {change.entry: (previous, change) for previous, change in entries}
    followed = {previous for previous, _ in entries}
    changes, last = [], 0
    for number in range(1, max(after, default=0) + 1):
        if number not in after:
            last = number if number in followed else last
        elif after[number][0] == last:
            changes.append(after[number][1])
            last = number
    return tuple(changes), last


def claim(change: Change, standing: Standing, client: MlflowClient, *, page: str) -> Change | None:
    """Write the next entry of the ledger; return the change as it counts, or None if another was quicker.

    Args:
        change: to make.
        standing: on which it was decided.
        client: of the registry.
        page: what MLflow's page of the entry shows, Markdown.

    Raises:
        RuntimeError: MLflow does not take it.
        ValueError: the ledger's name is another model's.
    """
    token = uuid.uuid4().hex
    content = {
        "champion": change.version,
        "over": change.over or "none",
        "kind": change.kind,
        "by": current_user(),
        "reason": change.reason,
        "after_entry": standing.last,
        "source": change.source,
        "evidence": json.dumps(change.evidence),
        "claim": token,
    }
    source = f"models:/{standing.name}/{change.version}"
    try:
        require_ledger(standing.name, client)
        client.create_model_version(
            ledger_name(standing.name),
            source,
            tags=content,
            description=page[:_DESCRIPTION_LENGTH],
            await_creation_for=0,
        )
    except MlflowException as error:
        raise RuntimeError(
            f"MLflow did not take the change of {standing.name}'s champion ({one_line(error)}); "
            f"captioning history {standing.name} tells what counts"
        ) from error
    counted = {one.claim: one for one in read_standing(standing.name, client).changes}
    return counted.get(token)


def require_ledger(name: str, client: MlflowClient) -> None:
    """Make the ledger unless it is there; somebody else may make it at the same time.

    Raises:
        ValueError: the ledger's name is another model's.
    """
    ledger = ledger_name(name)
    for is_last in (False, True):
        try:
            found = client.get_registered_model(ledger)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST" or is_last:
                raise
        else:
            if not is_ledger(found):
                raise ValueError(f"the registered model {ledger} is no ledger of {name}; rename one of the two")
            return
        try:
            about = (
                f"Every change of {name}'s champion, a version each; written by captioning, to be changed by nobody."
            )
            client.create_registered_model(ledger, tags={_LEDGER_TAG: name}, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _entries(name: str, client: MlflowClient) -> list[tuple[int, Change]]:
    """Read the ledger; what else was put there is left out."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(
            f"name = '{ledger_name(name)}'", _PAGE_LENGTH, order_by=["version_number ASC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            return [(int(one.tags["after_entry"]), _change(one)) for one in found if "after_entry" in one.tags]


def _change(entry: ModelVersion) -> Change:
    tags: dict[str, Any] = entry.tags
    return Change(
        version=tags["champion"],
        over=None if tags["over"] == "none" else tags["over"],
        kind=tags["kind"],
        reason=tags["reason"],
        evidence=json.loads(tags["evidence"]),
        source=tags["source"],
        by=tags["by"],
        entry=int(entry.version),
        at=utc(entry.creation_timestamp),
        claim=tags["claim"],
    )


def _loss_of(standing: Standing, client: MlflowClient) -> str:
    """Say why the champion cannot be served, if so."""
    change = standing.changes[-1]
    champion = f"version {change.version} of {standing.name}, its champion by entry {change.entry} of its history,"
    try:
        found = client.get_model_version(standing.name, change.version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return f"{champion} was deleted from the registry"
    return f"{champion} was replaced by another under its number" if found.source != change.source else ""


def _warn(standing: Standing, *, is_dry_run: bool) -> None:
    change = standing.changes[-1]
    logger.warning(
        "the alias champion of %s %s, while its history says version %s (entry %d, %s by %s at %s); %s%s",
        standing.name,
        f"points to version {standing.alias}" if standing.alias else "is gone",
        change.version,
        change.entry,
        change.kind,
        change.by,
        change.at,
        "it would be set right" if is_dry_run else "it is set right",
        f"; captioning rollback {standing.name} --to {standing.alias} changes the champion" if standing.alias else "",
    )
