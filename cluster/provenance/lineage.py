"""Where a model comes from: its version, its run, configuration and code, its scores, and the data's checksums."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.errors import one_line
from cluster.registry.champion import reconcile_alias
from cluster.registry.history import Change
from cluster.registry.models import ResolvedModel, configuration_of
from cluster.registry.scores import EVALUATION_TAG
from cluster.tracking.client import utc
from shards.features.manifest import load_features
from shards.manifest import load_manifest
from shards.storage.folders import ShardFolder, open_folder

_EVALUATION, _PACKAGE = f"{EVALUATION_TAG}.", "package."
Section = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """The chain that ends in a model."""

    model: str
    """Which it is, for people."""
    name: str | None
    version: str | None
    registered: dict[str, str]
    """By whom and when, if it is registered."""
    promotions: tuple[Change, ...]
    """Every time that it became champion, over which, and why."""
    checkpoint: dict[str, str]
    """sha256 of each file."""
    packages: dict[str, str]
    """Versions that it was registered with."""
    run: dict[str, str]
    code: dict[str, str]
    scores: dict[str, dict[str, Any]]
    """Evaluation by split."""
    configuration: Section
    """Resolved, of the run."""
    shards: Section
    """Shard set: digest and location; if it is still there, checksums of its annotation files and shards."""
    features: Section | None
    """Feature set, if it was trained on one: the same, and the encoder."""


def trace(model: ResolvedModel, client: MlflowClient) -> Lineage:
    """Follow a model back to its data; what cannot be reached any more says so in its place."""
    step, lineage, configuration = model.description.step, model.description.lineage, configuration_of(model)
    tags, registered, promotions = _registration(model, client)
    run, run_tags = _run(model, client)
    features = lineage.get("features_digest")
    return Lineage(
        model=str(model),
        name=model.name,
        version=model.version,
        registered=registered,
        promotions=promotions,
        checkpoint=model.description.files,
        packages={tag.removeprefix(_PACKAGE): value for tag, value in tags.items() if tag.startswith(_PACKAGE)},
        run=run,
        code={"commit": lineage.get("git_commit", "unknown"), "dirty": lineage.get("git_dirty", "unknown")},
        scores=_evaluations(run_tags, f".step-{step}") | _evaluations(tags),
        configuration=configuration,
        shards=_data(lineage.get("shards_digest", "unknown"), configuration.get("shards"), _describe_shards),
        features=_data(features, configuration.get("features"), _describe_features) if features else None,
    )


def _registration(
    model: ResolvedModel, client: MlflowClient
) -> tuple[dict[str, str], dict[str, str], tuple[Change, ...]]:
    if not model.name or not model.version:
        return {}, {}, ()
    found = client.get_model_version(model.name, model.version)
    changes = reconcile_alias(model.name, client).changes
    registered = {"by": found.tags.get("registered_by", "unknown"), "at": utc(found.creation_timestamp)}
    return found.tags, registered, tuple(change for change in changes if change.version == model.version)


def _run(model: ResolvedModel, client: MlflowClient) -> tuple[dict[str, str], dict[str, str]]:
    known = {"name": model.description.lineage.get("run", "unknown"), "mlflow_run_id": model.mlflow_run_id or "unknown"}
    try:
        run = client.get_run(known["mlflow_run_id"])
    except MlflowException as error:
        return known | {"fault": f"not in this tracker ({one_line(error, with_kind=False)})"}, {}
    more = {
        "status": run.info.status,
        "by": run.data.tags.get("mlflow.user", "unknown"),
        "started": utc(run.info.start_time),
        "folder": run.data.tags.get("run_folder", "unknown"),
    }
    return known | more, run.data.tags


def _evaluations(tags: Mapping[str, str], suffix: str = "") -> dict[str, dict[str, Any]]:
    """Return the evaluations among tags, by split."""
    return {
        tag.removeprefix(_EVALUATION).removesuffix(suffix): json.loads(value)
        for tag, value in tags.items()
        if tag.startswith(_EVALUATION) and tag.endswith(suffix)
    }


def _data(digest: str, location: str | None, describe: Callable[[ShardFolder], tuple[str, Section]]) -> Section:
    """Return what is known of a set: if it can be read where it lay, all of it."""
    known = {"digest": digest, "location": location}
    if not location:
        return known | {"fault": "the configuration does not tell where it lies"}
    try:
        found, content = describe(open_folder(location))
    except (OSError, ValueError) as error:
        return known | {"fault": one_line(error, with_kind=False, longest=None)}
    return known | (content if found == digest else {"fault": f"what lies there now is another, {found}"})


def _describe_shards(folder: ShardFolder) -> tuple[str, Section]:
    manifest = load_manifest(folder)
    return manifest.digest, {
        "samples": manifest.splits,
        "vocabulary": manifest.vocabulary_digest,
        "image_spec": asdict(manifest.image_spec),
        "codecs": manifest.codec_versions,
        "annotations": manifest.annotations,
        "files": {shard.name: shard.sha256 for shard in manifest.shards},
    }


def _describe_features(folder: ShardFolder) -> tuple[str, Section]:
    manifest = load_features(folder)
    return manifest.digest, {
        "encoder": asdict(manifest.encoder),
        "settings": asdict(manifest.settings),
        "files": {shard.name: shard.sha256 for shard in manifest.shards},
    }
