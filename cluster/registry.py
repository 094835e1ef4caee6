"""Models by name in MLflow's registry: scores, promoting, listing."""

import getpass
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cluster.evaluation import Evaluation
from cluster.models import ResolvedModel, find_version, one_line

logger = logging.getLogger(__name__)

CHALLENGER, CHAMPION = "challenger", "champion"
GATE_METRIC = "CIDEr-D"
EVALUATION_TAG = "evaluation"


class GateRefusal(Exception):  # noqa: N818  a decision, not an error
    """A promotion that the gate refuses, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionSummary:
    """One registered version, for people."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run: str
    step: str
    scores: dict[str, dict[str, Any]]
    """Evaluation by split."""
    promoted: str


def log_evaluation(model: ResolvedModel, evaluation: Evaluation, client: MlflowClient) -> None:
    """Keep an evaluation with the model's version, if it has one, and with the run that trained it, if it is known."""
    summary = json.dumps(evaluation.summary())
    if model.name and model.version:
        client.set_model_version_tag(model.name, model.version, f"{EVALUATION_TAG}.{evaluation.split}", summary)
    if not model.mlflow_run_id:
        return
    try:
        for name, score in evaluation.scores.items():
            client.log_metric(model.mlflow_run_id, f"{evaluation.split}/{name}", score, step=evaluation.step)
        client.set_tag(model.mlflow_run_id, _run_tag(evaluation.split, evaluation.step), summary)
        client.log_dict(
            model.mlflow_run_id, evaluation.summary(), f"evaluations/{evaluation.split}-step-{evaluation.step}.json"
        )
    except MlflowException as error:
        logger.warning("the scores are not in MLflow: %s", one_line(error))


def _run_tag(split: str, step: int) -> str:
    return f"{EVALUATION_TAG}.{split}.step-{step}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """A decision to make a version the champion."""

    name: str
    version: str
    over: str
    """The champion so far, or none."""
    reason: str


def decide_promotion(name: str, client: MlflowClient, *, split: str) -> Promotion:
    """Compare the challenger with the champion on the same split of the same shard set.

    Raises:
        ValueError: there is no challenger, or a version was not evaluated on the split.
        GateRefusal: the challenger does not score higher.
    """
    challenger = find_version(f"models:/{name}@{CHALLENGER}", client)
    champion = _alias_or_none(name, CHAMPION, client)
    if champion and champion.version == challenger.version:
        raise GateRefusal(f"{name} version {champion.version} is the champion already")
    new = _evaluation_of(challenger, split)
    after = new["scores"][GATE_METRIC]
    version = str(challenger.version)
    if not champion:
        return Promotion(
            name=name, version=version, over="none", reason=f"the first, with {GATE_METRIC} {after:.4f} on {split}"
        )
    old = _evaluation_of(champion, split)
    _require_same_data(challenger, champion, new, old)
    before = old["scores"][GATE_METRIC]
    compared = f"{GATE_METRIC} {after:.4f} against {before:.4f} of version {champion.version} on {split}"
    if not after > before:  # nor if either is no number
        raise GateRefusal(f"{name} version {version} is not better: {compared}; the champion stays")
    return Promotion(name=name, version=version, over=str(champion.version), reason=f"better: {compared}")


def promote(decision: Promotion, client: MlflowClient) -> None:
    """Note who promotes, when, over what and why with the version; then move the alias."""
    record = {
        "promoted_by": getpass.getuser(),
        "promoted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "promoted_over": decision.over,
        "promoted_because": decision.reason,
    }
    for tag, value in record.items():
        client.set_model_version_tag(decision.name, decision.version, tag, value)
    client.set_registered_model_alias(decision.name, CHAMPION, decision.version)


def _alias_or_none(name: str, alias: str, client: MlflowClient) -> ModelVersion | None:
    return (
        client.get_model_version_by_alias(name, alias) if alias in client.get_registered_model(name).aliases else None
    )


def _evaluation_of(found: ModelVersion, split: str) -> dict[str, Any]:
    text = found.tags.get(f"{EVALUATION_TAG}.{split}")
    if not text:
        raise ValueError(
            f"{found.name} version {found.version} was not evaluated on {split}; "
            f"run captioning evaluate models:/{found.name}/{found.version} --split {split} first"
        )
    return json.loads(text)


def _require_same_data(
    challenger: ModelVersion, champion: ModelVersion, new: dict[str, Any], old: dict[str, Any]
) -> None:
    settings = ("beam_size", "num_images")
    if [new[setting] for setting in settings] != [old[setting] for setting in settings]:
        raise ValueError(
            f"versions {challenger.version} and {champion.version} of {champion.name} were evaluated with different "
            f"settings (beam {new['beam_size']} and {old['beam_size']}, {new['num_images']} and {old['num_images']} "
            "images); evaluate both alike"
        )
    if new["shards_digest"] != old["shards_digest"]:
        raise ValueError(
            f"versions {challenger.version} and {champion.version} of {champion.name} were evaluated on different "
            f"shard sets ({new['shards_digest'][:12]}, {old['shards_digest'][:12]}); evaluate both on the same one"
        )


def list_versions(client: MlflowClient, name: str | None = None) -> Sequence[VersionSummary]:
    """Return the registered versions, the newest of each name first.

    Raises:
        ValueError: there is no model of this name.
    """
    names = [name] if name else sorted(model.name for model in client.search_registered_models())
    found: list[VersionSummary] = []
    for one in names:
        try:
            versions = client.search_model_versions(f"name = '{one}'")
        except MlflowException as error:
            raise ValueError(f"{one!r} cannot be a model's name ({one_line(error)})") from None
        if name and not versions:
            raise ValueError(f"model {one} is not in the registry; captioning register MODEL {one} puts one there")
        newest_first = sorted(versions, key=lambda version: int(version.version), reverse=True)
        # A search leaves the aliases out.
        found += [_summarize(client.get_model_version(one, str(version.version))) for version in newest_first]
    return found


def _summarize(found: ModelVersion) -> VersionSummary:
    prefix = f"{EVALUATION_TAG}."
    promoted = ""
    if "promoted_by" in found.tags:
        promoted = f"{found.tags['promoted_by']} {found.tags['promoted_at']}, {found.tags['promoted_because']}"
    return VersionSummary(
        name=found.name,
        version=str(found.version),
        aliases=tuple(found.aliases),
        run=found.tags.get("run", ""),
        step=found.tags.get("step", ""),
        scores={
            tag.removeprefix(prefix): json.loads(value) for tag, value in found.tags.items() if tag.startswith(prefix)
        },
        promoted=promoted,
    )
