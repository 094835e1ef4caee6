"""Records of a run's start: its identity on disk, its MLflow run, and a file that says where this start runs."""

import logging
import uuid
from dataclasses import replace

from mlflow import MlflowClient
from mlflow.entities import DatasetInput
from mlflow.exceptions import MlflowException

from cluster.checks.data import fetch_weights_here
from cluster.config import TrainRun
from cluster.data.shard_set import ShardSet
from cluster.errors import Refusal
from cluster.git import git_state
from cluster.runs.identity import CONFIG_NAME, check_identity, config_text, identity_of
from cluster.runs.journal import unshipped
from cluster.runs.record import RunRecord, format_version_of, load_record, lock_run
from cluster.tracking.access import restore_remedy, tracker_line
from cluster.tracking.client import connect, connect_before_start, create_run, log_parameters, tracking_uri
from cluster.tracking.datasets import dataset_input, split_inputs
from cluster.tracking.experiment import experiment_id
from cluster.tracking.markdown import escaped
from cluster.tracking.metric_logging import STOPPED_EARLY_TAG, end_tags, ship
from shards.features.manifest import FEATURES_NAME
from shards.storage.files import replace_file

logger = logging.getLogger(__name__)

# What a tracker that is down, or replaced by the page of a proxy, raises: training goes on without it.
_OF_THE_TRACKER = (MlflowException, OSError, Refusal)


def ship_the_rest(run: TrainRun, record: RunRecord) -> bool:
    """Send the rows of a finished run that the tracker lacks; return whether it has everything now."""
    try:
        with lock_run(run.folder):
            client = connect(run.tracking, run.storage)
            segments = unshipped(run.folder / "journal")
            ship(client, record.mlflow_run_id, segments, status="FINISHED", tags=end_tags(record))
    except _OF_THE_TRACKER as error:
        logger.warning("the tracker may lack metrics of this run: %s", tracker_line(error))
        return False
    return True


def known_record(run: TrainRun, shard_set: ShardSet) -> RunRecord | None:
    """Return the run's record if it was started before.

    Raises:
        Refusal: the run was started with other settings, or its folder has another run, or a damaged record.
    """
    record = load_record(run.folder)
    if record and record.name != run.name:  # two folders would send their rows to one MLflow run
        raise Refusal(
            f"{run.folder} holds run {record.name}, whose folder was copied or renamed",
            f"give the folder the name {record.name}, or train under another --name",
        )
    if record:
        check_identity(record, identity_of(run, shard_set.manifest, shard_set.features_digest))
    if record and record.checkpoints and record.checkpoints_at != run.storage.checkpoints:
        raise Refusal(
            f"run {run.name} keeps its checkpoints at {record.checkpoints_at or run.folder}",
            (f"use --checkpoints {record.checkpoints_at}" if record.checkpoints_at else "leave out --checkpoints")
            + ", or choose another --name",
        )
    return record


def prepare_start(run: TrainRun, record: RunRecord | None) -> MlflowClient | None:
    """Fetch the weights and connect to the tracker, before Ray starts; return the client if the run is new to it.

    Raises:
        ConnectionError: the tracker does not answer, or the weights cannot be downloaded.
        Refusal, MlflowException: as by ``connect_before_start``.
    """
    if record is None or record.latest is None:
        fetch_weights_here(run.model.backbone, run.model.weights, run.cluster)
    if record and record.mlflow_run_id:
        return None
    return connect_before_start(run.tracking, run.storage)


def start_record(run: TrainRun, shard_set: ShardSet, client: MlflowClient | None = None) -> RunRecord:
    """Write the record of this start; create the MLflow run if it does not exist.

    Args:
        run: training run that starts.
        shard_set: shard set of the run.
        client: client of the run's tracker; without one, this function connects.

    Raises:
        ConnectionError: the run has no MLflow run yet, and the tracker does not answer.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = lock_run(run.folder)
    try:
        identity = identity_of(run, shard_set.manifest, shard_set.features_digest)
        record = known_record(run, shard_set) or RunRecord(
            name=run.name, identity=identity, key=uuid.uuid4().hex, format_version=format_version_of(run)
        )
        scores = record.scores if record.best_by == run.validation.best_by else ()
        record = replace(
            record,
            identity=identity,  # self-critical training may be new in it
            best_by=run.validation.best_by,
            scores=scores,
            checkpoints_at=run.storage.checkpoints,
        )
        was_stopped = bool(record.stopped_early)
        record = replace(record, is_finished=False, stopped_early="")
        # Before MLflow: if this process is killed after it created the MLflow run, the next start finds it by the key.
        record.save(run.folder)
        client = client or _connect(run, is_needed=not record.mlflow_run_id)
        if client and (not record.mlflow_run_id or _is_unknown(client, record)):
            record = replace(record, mlflow_run_id=_create_mlflow_run(client, run, record, shard_set))
        record = replace(record, num_starts=record.num_starts + 1)
        record.save(run.folder)
    finally:
        lock.close()
    replace_file(run.folder / CONFIG_NAME, config_text(run).encode())
    if client:
        _log_start(client, run, record, was_stopped=was_stopped)
    return record


def _connect(run: TrainRun, *, is_needed: bool) -> MlflowClient | None:
    """Return a client of the run's tracker; None if the tracker does not answer and is not needed."""
    try:
        return connect(run.tracking, run.storage)
    except _OF_THE_TRACKER as error:
        if is_needed:
            raise
        _warn_that_it_is_down(error)
        return None


def _is_unknown(client: MlflowClient, record: RunRecord) -> bool:
    """Return whether the tracker answers and does not have the run, because it is another or an empty tracker.

    Raises:
        Refusal: the run was deleted there.
    """
    try:
        found = client.get_run(record.mlflow_run_id)
    except MlflowException as error:
        return error.error_code == "RESOURCE_DOES_NOT_EXIST"
    except OSError:
        return False
    if found.info.lifecycle_stage == "deleted":
        raise Refusal(
            f"MLflow run {record.mlflow_run_id} of run {record.name} was deleted",
            f"{restore_remedy('run', record.mlflow_run_id)}, or choose another --name",
        )
    return False


def _create_mlflow_run(client: MlflowClient, run: TrainRun, record: RunRecord, shard_set: ShardSet) -> str:
    return create_run(
        client,
        experiment_id(client, run.tracking, run.storage),
        key=record.key,
        name=run.name,
        parameters=record.identity,
        tags={"run_folder": str(run.folder), **git_state()},
        datasets=datasets_of(run, shard_set),
        note=_note(run, shard_set),
    )


def datasets_of(run: TrainRun, shard_set: ShardSet) -> list[DatasetInput]:
    """Return the data that a training run reads, as inputs of its MLflow run."""
    contexts = [(run.train_split, "training"), (run.validation_split, "validation")]
    found = split_inputs(shard_set.folder, shard_set.manifest, contexts)
    if shard_set.features:
        folder, digest = shard_set.features.folder, shard_set.features.manifest.digest
        found.append(dataset_input(folder.name, f"{folder}", digest, context="features", index=FEATURES_NAME))
    return found


def _note(run: TrainRun, shard_set: ShardSet) -> str:
    """Return what a run is, as one line of Markdown."""
    num_images = shard_set.manifest.splits.get(run.train_split, 0)
    return (
        f"{escaped(run.model.backbone)} encoder and {escaped(run.model.decoder)} decoder, "
        f"{run.training.num_epochs:g} epochs of {num_images:,} images of {escaped(shard_set.folder.name)}"
    )


def _log_start(client: MlflowClient, run: TrainRun, record: RunRecord, *, was_stopped: bool) -> None:
    """Log where this start runs, as a file; only at the first start is an unreachable tracker an error."""
    placement = {
        "cluster": f"{run.cluster.num_workers} workers of {run.cluster.cpus_per_worker} CPUs"
        + (" and a GPU" if run.cluster.use_gpu else ""),
        "home": str(run.storage.home),
        "shards": str(run.shards),
        "tracking": tracking_uri(run.tracking, run.storage),
    }
    try:
        client.update_run(record.mlflow_run_id, status="RUNNING")
        log_parameters(client, record.mlflow_run_id, record.identity)
        if was_stopped:
            client.set_tag(record.mlflow_run_id, STOPPED_EARLY_TAG, "")
        client.log_dict(record.mlflow_run_id, placement, f"starts/start-{record.num_starts}.json")
        client.log_text(record.mlflow_run_id, config_text(run), "config.yaml")
    except Exception as error:
        if record.num_starts == 1:
            raise
        _warn_that_it_is_down(error)


def _warn_that_it_is_down(error: Exception) -> None:
    logger.warning("the tracker does not take this start, training continues: %s", tracker_line(error))


def lineage_of(shard_set: ShardSet) -> dict[str, str]:
    """Return the lineage of a checkpoint: the digests of its data and the commit of its code."""
    git = git_state()
    return {
        "shards_digest": shard_set.manifest.digest,
        **({"features_digest": shard_set.features_digest} if shard_set.features_digest else {}),
        "tokenizer": shard_set.vocabulary.tokenizer.name,
        "git_commit": git["mlflow.source.git.commit"],
        "git_dirty": git["git.dirty"],
    }


def mark_killed(run: TrainRun, record: RunRecord) -> None:
    """Set the status of a run's MLflow run to KILLED; an unreachable tracker is only logged."""
    try:
        connect(run.tracking, run.storage).set_terminated(record.mlflow_run_id, status="KILLED")
    except Exception as error:  # which type depends on the tracker's database or server
        logger.warning("the tracker could not record the status KILLED: %s", tracker_line(error))
