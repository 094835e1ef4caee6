"""History of a model's champions: every change of champion, stored in MLflow, in one order for all readers.

The history of model NAME is the registered model NAME.history; each of its versions is an entry. An alias alone is not
enough: MLflow lets the last writer move it, and keeps no record. MLflow creates a version in one insert, with all its
tags, under the unique key (name, number). The number is one more than the highest, so a reader that sees an entry also
sees all earlier ones.

Every entry names the entry that it was decided after. Of several entries that name the same one, only the first is
valid, and the writers of the others decide again. For the same reason, an entry that a client sends twice, because a
response was lost, takes effect once.
"""

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from cluster.errors import one_line
from cluster.settings import HISTORY_SUFFIX
from cluster.tracking.client import current_user, utc, versions_of

logger = logging.getLogger(__name__)

_HISTORY_TAG, _AFTER = "history_of", "after_entry"
_DESCRIPTION_LENGTH = 5000  # width of MLflow's column; PostgreSQL refuses longer text


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A change of champion."""

    version: str
    """Version number of the new champion; empty if the entry cannot be read."""
    over: str | None
    """Version number of the previous champion; None if there was none."""
    kind: Literal["promoted", "forced", "rolled back", "unreadable"]
    """Kind of the change; of an entry that was altered and cannot be read, only number and time are known."""
    reason: str
    evidence: dict[str, Any] | None = None
    """Evidence of the gate; None for a rollback."""
    source: str = ""
    """Location of the version's files; identifies the version if the model is deleted and created again."""
    by: str = ""
    """Name of the user who made the change."""
    entry: int = 0
    """Number of the entry in the history."""
    at: str = ""
    """Time at which MLflow stored the entry, ISO 8601, UTC."""
    claim: str = ""
    """Unique token by which the writer recognizes its entry."""


def history_name(name: str) -> str:
    """Return the name of the registered model that holds a model's history."""
    return f"{name}{HISTORY_SUFFIX}"


def is_history(model: RegisteredModel) -> bool:
    """Return whether a registered model is another model's history."""
    return _HISTORY_TAG in model.tags


def read_history(name: str, client: MlflowClient) -> tuple[tuple[Change, ...], int]:
    """Return the valid changes, and the number of the entry that the next change must follow.

    An entry that was altered so that it cannot be read is named in a warning, and keeps its place in the order.
    """
    found = versions_of(history_name(name), client)
    # Other versions were not written by this program.
    return counting([(_after(one), _change(one)) for one in found if _AFTER in one.tags])


def counting(entries: Sequence[tuple[int, Change]]) -> tuple[tuple[Change, ...], int]:
    """Return the valid changes, and the number of the entry that the next change must follow.

    An entry that was deleted by hand is assumed to have been valid if another entry was decided after it.

    Args:
        entries: pairs of the number of the entry that a change was decided after, and the change.
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
    """Write the next entry of the history; return the stored change, or None if another entry came first.

    Args:
        name: model's name in the registry.
        change: new change of champion.
        client: client of the registry.
        after: number of the entry that the change was decided after.
        page: description of the entry for MLflow's UI, in Markdown.

    Raises:
        RuntimeError: MLflow did not confirm the entry.
        ValueError: NAME.history is an ordinary model.
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
        ensure_history(name, client)
        client.create_model_version(
            history_name(name),
            source,
            tags=content,
            description=page[:_DESCRIPTION_LENGTH],
            await_creation_for=0,
        )
    except MlflowException as error:
        raise RuntimeError(
            f"MLflow did not confirm the change of {name}'s champion ({one_line(error, with_kind=False)}); "
            f"captioning history {name} shows whether it took effect"
        ) from error
    # Another process may have added an entry first; this one is valid only if the history lists it.
    counted = {one.claim: one for one in read_history(name, client)[0]}
    return counted.get(token)


def ensure_history(name: str, client: MlflowClient) -> None:
    """Create a model's history unless it exists; another process may create it at the same time.

    Raises:
        ValueError: NAME.history is an ordinary model.
    """
    history = history_name(name)
    for is_last in (False, True):
        try:
            found = client.get_registered_model(history)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST" or is_last:
                raise
        else:
            if not is_history(found):
                raise ValueError(f"the registered model {history} is not the history of {name}; rename one of the two")
            return
        try:
            about = f"Every change of {name}'s champion, one version each. Written by captioning; do not edit."
            client.create_registered_model(history, tags={_HISTORY_TAG: name}, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _after(entry: ModelVersion) -> int:
    try:
        return int(entry.tags[_AFTER])
    except ValueError:  # altered; as a rule, an entry follows the one before it
        return int(entry.version) - 1


def _change(entry: ModelVersion) -> Change:
    tags: dict[str, Any] = entry.tags
    place: dict[str, Any] = {"entry": int(entry.version), "at": utc(entry.creation_timestamp)}
    try:
        int(tags[_AFTER])
        return Change(
            version=f"{int(tags['champion'])}",
            over=None if tags["over"] == "none" else tags["over"],
            kind=tags["kind"],
            reason=tags["reason"],
            evidence=json.loads(tags["evidence"]),
            source=tags["source"],
            by=tags["by"],
            claim=tags["claim"],
            **place,
        )
    except (KeyError, ValueError, RecursionError) as error:
        logger.warning(
            "entry %s of %s was altered and cannot be read (%s); restore its tags in MLflow",
            entry.version,
            entry.name,
            one_line(error),
        )
        return Change(version="", over=None, kind="unreadable", reason="", **place)
