"""Lineage of a model: its version, run, configuration, code and scores, and the checksums of its data."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from captioning.data.tokenizers import PTB
from cluster.errors import one_line
from cluster.registry.champion import reconcile_alias
from cluster.registry.evaluations import evaluations_of, evaluations_of_run, evaluations_of_tags
from cluster.registry.history import Change
from cluster.registry.logged_models import record_of
from cluster.registry.models import ResolvedModel, configuration_of
from cluster.tracking.access import is_about_the_request
from cluster.tracking.client import utc
from shards.features.manifest import load_features
from shards.manifest import load_manifest
from shards.storage.folders import ShardFolder, open_folder

_PACKAGE = "package."
Section = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """Everything that a model was made from."""

    model: str
    """Description of the model, such as ``captioner version 3, step 800 of run first``."""
    name: str | None
    """Name in the registry; None if not registered."""
    version: str | None
    """Number of the version; None if not registered."""
    registered: dict[str, str]
    """User (``by``) and UTC time (``at``) of the registration; empty if not registered."""
    promotions: tuple[Change, ...]
    """Changes that made it the champion, oldest first."""
    checkpoint: dict[str, str]
    """SHA-256 of each file of the checkpoint, by name."""
    packages: dict[str, str]
    """Versions of the packages that it was registered with, by name."""
    run: dict[str, str]
    """Training run: name, MLflow run id, status, user, start time and folder."""
    code: dict[str, str]
    """Git commit (``commit``), and whether it had uncommitted changes (``dirty``)."""
    scores: dict[str, dict[str, Any]]
    """Evaluations, by split."""
    configuration: Section
    """Resolved configuration of the run."""
    shards: Section
    """Shard set: tokenizer of its captions, digest and location; if it can still be read, checksums of its annotation
    files and shards."""
    features: Section | None
    """Feature set, with the same entries and the encoder; None if the model was not trained on one."""


def trace(model: ResolvedModel, client: MlflowClient) -> Lineage:
    """Trace a model back to its data.

    A part that can no longer be read has an entry ``fault`` with the reason.
    """
    lineage, configuration = model.description.lineage, configuration_of(model)
    record, registered, promotions = _registration(model, client)
    run, evaluations = _run(model, client)
    features = lineage.get("features_digest")
    return Lineage(
        model=str(model),
        name=model.name,
        version=model.version,
        registered=registered,
        promotions=promotions,
        checkpoint=model.description.files,
        packages={tag.removeprefix(_PACKAGE): value for tag, value in record.items() if tag.startswith(_PACKAGE)},
        run=run,
        code={"commit": lineage.get("git_commit", "unknown"), "dirty": lineage.get("git_dirty", "unknown")},
        scores=evaluations | evaluations_of(record),
        configuration=configuration,
        shards={
            "tokenizer": lineage.get("tokenizer", PTB.name),  # the only one of earlier releases
            **_data(lineage.get("shards_digest", "unknown"), configuration.get("shards"), _describe_shards),
        },
        features=_data(features, configuration.get("features"), _describe_features) if features else None,
    )


def _registration(
    model: ResolvedModel, client: MlflowClient
) -> tuple[dict[str, str], dict[str, str], tuple[Change, ...]]:
    if not model.name or not model.version:
        return {}, {}, ()
    found = client.get_model_version(model.name, model.version)
    changes = reconcile_alias(model.name, client, is_dry_run=True).changes  # who only reads, moves no alias
    record = record_of(found, client)
    registered = {"by": record.get("registered_by", "unknown"), "at": utc(found.creation_timestamp)}
    return record, registered, tuple(change for change in changes if change.version == model.version)


def _run(model: ResolvedModel, client: MlflowClient) -> tuple[dict[str, str], dict[str, Section]]:
    """Return what is known of a model's run, and the evaluations of the checkpoint there."""
    known = {"name": model.description.lineage.get("run", "unknown"), "mlflow_run_id": model.mlflow_run_id or "unknown"}
    try:
        run = client.get_run(known["mlflow_run_id"])
    except MlflowException as error:
        if not is_about_the_request(error):
            raise
        return known | {"fault": f"not in this tracker ({one_line(error, with_kind=False)})"}, {}
    more = {
        "status": run.info.status,
        "by": run.data.tags.get("mlflow.user", "unknown"),
        "started": utc(run.info.start_time),
        "folder": run.data.tags.get("run_folder", "unknown"),
    }
    step = model.description.step
    try:
        return known | more, evaluations_of_run(run, step, client)
    except Exception as error:  # which type depends on the tracker's artifact store
        fault = f"its evaluations cannot be read ({one_line(error, with_kind=False)})"
        return known | more | {"fault": fault}, evaluations_of_tags(run, step)


def _data(digest: str, location: str | None, describe: Callable[[ShardFolder], tuple[str, Section]]) -> Section:
    """Return digest and location of a set; if the same set is still there, its content as well."""
    known = {"digest": digest, "location": location}
    if not location:
        return known | {"fault": "the configuration does not name its location"}
    try:
        found, content = describe(open_folder(location))
    except (OSError, ValueError) as error:
        return known | {"fault": one_line(error, with_kind=False, longest=None)}
    return known | (content if found == digest else {"fault": f"the location now holds another set, {found}"})


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
