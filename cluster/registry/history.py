"""History of a model's champions: every change of champion, stored in MLflow, in one order for all readers.

The history of model NAME is the registered model NAME.history; each of its versions is an entry. An alias would not
do: MLflow moves it for whoever asks last and keeps no record. A version is one insert, with all its tags, under the
unique key (name, number). Its number is one more than the highest, so a reader who sees an entry also sees all earlier
ones.

Every entry names the entry after which it was decided. Of several that name the same one, the first counts and the
others never do; their writers decide again. So an entry also counts once if a client sends it twice, because the answer
was lost.
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

_HISTORY_TAG, _AFTER = "history_of", "after_entry"
_PAGE_LENGTH = 1000
_DESCRIPTION_LENGTH = 5000  # a column of MLflow's, where PostgreSQL refuses more


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A change of champion."""

    version: str
    """Number of the new champion."""
    over: str | None
    """Number of the champion before; None if there was none."""
    kind: Literal["promoted", "forced", "rolled back"]
    reason: str
    evidence: dict[str, Any] | None = None
    """The gate's evidence; None for a rollback."""
    source: str = ""
    """Location of the version's files; tells it from another of its number if the name is deleted and made anew."""
    by: str = ""
    entry: int = 0
    """Its number in the history."""
    at: str = ""
    """Time at which MLflow stored it, UTC, ISO 8601."""
    claim: str = ""
    """Unique token, by which the writer finds its entry again."""


def history_name(name: str) -> str:
    """Return the name of the registered model that holds a model's history."""
    return f"{name}.history"


def is_history(model: RegisteredModel) -> bool:
    """Return whether a registered model is another model's history."""
    return _HISTORY_TAG in model.tags


def read_history(name: str, client: MlflowClient) -> tuple[tuple[Change, ...], int]:
    """Return the changes that count, and the entry that the next change must follow.

    Raises:
        ValueError: an entry was altered.
    """
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(
            f"name = '{history_name(name)}'", _PAGE_LENGTH, order_by=["version_number ASC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    entries = [one for one in found if _AFTER in one.tags]  # and nothing else that was put there
    try:
        return counting([(int(one.tags[_AFTER]), _change(one)) for one in entries])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"an entry of {history_name(name)} was altered ({error}); restore its tags in MLflow"
        ) from None


def counting(entries: Sequence[tuple[int, Change]]) -> tuple[tuple[Change, ...], int]:
    """Return the changes that count, and the entry that the next change must follow.

    An entry that was deleted by hand is taken to have counted if another entry was decided after it.

    Args:
        entries: pairs of the entry after which a change was decided, and the change.
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
    """Write the next entry of the history; return the change as stored, or None if another came first.

    Args:
        name: the model's name in the registry.
        change: the new change of champion.
        client: the registry's client.
        after: number of the entry after which the change was decided.
        page: description of the entry on MLflow's page, Markdown.

    Raises:
        RuntimeError: MLflow does not take the entry.
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
            f"MLflow did not take the change of {name}'s champion ({one_line(error, with_kind=False)}); "
            f"captioning history {name} tells what counts"
        ) from error
    counted = {one.claim: one for one in read_history(name, client)[0]}
    return counted.get(token)


def ensure_history(name: str, client: MlflowClient) -> None:
    """Make a model's history unless it exists; another process may make it at the same time.

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
                raise ValueError(f"the registered model {history} is no history of {name}; rename one of the two")
            return
        try:
            about = (
                f"Every change of {name}'s champion, a version each; written by captioning, to be changed by nobody."
            )
            client.create_registered_model(history, tags={_HISTORY_TAG: name}, description=about)
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
