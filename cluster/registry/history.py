"""The ledger of a model's champions: every change of champion, in MLflow, in one order for all who read it.

MLflow moves an alias for whoever asks last, and keeps no record of it. What it does only once is to number a model's
versions: a version is one insert, with all its tags, under the unique key (name, number); its number is one more than
the highest, so that nobody sees a version before he could see those below it. So NAME's ledger is the registered model
NAME.history, whose versions are its entries. Every entry says after which entry it was decided. The first that says so
counts; one that says the same later never counts, and whoever wrote it decides again. An entry that a client sends
twice, because the answer was lost, counts once for the same reason.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from cluster.errors import one_line
from cluster.tracking.client import current_user, utc

_LEDGER_TAG, _AFTER = "history_of", "after_entry"
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


def ledger_name(name: str) -> str:
    """Return the registered model that is a model's ledger."""
    return f"{name}.history"


def is_ledger(model: RegisteredModel) -> bool:
    """Return whether a registered model is another's ledger."""
    return _LEDGER_TAG in model.tags


def read_ledger(name: str, client: MlflowClient) -> tuple[tuple[Change, ...], int]:
    """Return the changes that count, and the entry that the next change must follow.

    Raises:
        ValueError: an entry was altered.
    """
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(
            f"name = '{ledger_name(name)}'", _PAGE_LENGTH, order_by=["version_number ASC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    entries = [one for one in found if _AFTER in one.tags]  # and nothing else that was put there
    try:
        return counting([(int(one.tags[_AFTER]), _change(one)) for one in entries])
    except (KeyError, ValueError) as error:
        raise ValueError(f"an entry of {ledger_name(name)} was altered ({error}); restore its tags in MLflow") from None


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


def claim(name: str, change: Change, client: MlflowClient, *, after: int, page: str) -> Change | None:
    """Write the next entry of the ledger; return the change as it counts, or None if another was quicker.

    Args:
        name: of the model.
        change: to make.
        client: of the registry.
        after: entry after which it was decided.
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
        _AFTER: after,
        "source": change.source,
        "evidence": json.dumps(change.evidence),
        "claim": token,
    }
    source = f"models:/{name}/{change.version}"
    try:
        require_ledger(name, client)
        client.create_model_version(
            ledger_name(name),
            source,
            tags=content,
            description=page[:_DESCRIPTION_LENGTH],
            await_creation_for=0,
        )
    except MlflowException as error:
        raise RuntimeError(
            f"MLflow did not take the change of {name}'s champion ({one_line(error, with_kind=False)}); "
            f"captioning history {name} tells what counts"
        ) from error
    counted = {one.claim: one for one in read_ledger(name, client)[0]}
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
