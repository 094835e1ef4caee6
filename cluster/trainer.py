"""A training run under Ray Train: described first, then started and followed to its end."""

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from captioning.training import num_training_steps
from captioning.weights import is_weights_file
from cluster.config import TrainRun, without_credentials, without_secrets
from cluster.coordinator import Progress, hold_run, start_coordinator
from cluster.data import ShardSet
from cluster.journal import Journal
from cluster.preflight import check_capacity, check_data, check_files_are_shared, check_home_is_shared
from cluster.progress import ProgressLog
from cluster.runs import RunRecord, check_identity, checkpoint_folder, identity_of, load_record
from cluster.session import cluster_session
from cluster.tracking import (
    connect,
    create_run,
    experiment_id,
    git_state,
    set_tags,
    ship,
    tracking_uri,
)
from cluster.worker import WorkerTask, train_worker
from shards.manifest import MANIFEST_NAME

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOutcome:
    """How a run ended."""

    name: str
    step: int
    mlflow_run_id: str
    best_checkpoint: Path
    validation_loss_nats: float
    is_tracked: bool
    """Whether the tracker has every row."""


def build_trainer(run: TrainRun, task: WorkerTask, *, start: int) -> TorchTrainer:
    """Describe the training to Ray; nothing starts yet.

    Args:
        run: what to train.
        task: what every rank is told.
        start: how often a driver has started this run; each start is a Train run of its own, for Ray's snapshot of an
            earlier one is not relied on.
    """
    cluster = run.cluster
    return TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend="nccl" if cluster.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=cluster.use_gpu,
            resources_per_worker={
                "CPU": cluster.cpus_per_worker,
                **({"GPU": 1} if cluster.use_gpu else {}),
                **cluster.resources_per_worker,
            },
        ),
        run_config=RunConfig(
            name=f"start-{start}",
            storage_path=str(run.folder / "ray"),
            failure_config=FailureConfig(max_failures=cluster.max_restarts),
        ),
    )


def fit(run: TrainRun) -> TrainOutcome:
    """Train to the end, from the last checkpoint if the run has one.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the run cannot work as it is described.
        ConnectionError: the cluster or, at the run's first start, the tracker does not answer.
        BlockingIOError: the run has a live driver.
        RuntimeError: training failed more often than ``cluster.max_restarts``.
    """
    shard_set = check_data(run)
    record = _known_record(run, shard_set)
    if record and record.is_finished:
        logger.info("run %s is finished already", run.name)
        return _outcome(run, record, is_tracked=_ship_the_rest(run, record))
    if not record or not record.mlflow_run_id:
        connect(run.tracking, run.storage)
    with cluster_session(run.cluster):
        check_capacity(run.cluster)
        check_home_is_shared(run.storage.home)
        check_files_are_shared([shard_set.folder / MANIFEST_NAME, *_weights_files(run)])
        record = _start_record(run, shard_set)
        return _fit_on_cluster(run, record, shard_set)


def _weights_files(run: TrainRun) -> list[Path]:
    return [Path(run.model.weights)] if is_weights_file(run.model.weights) else []


def _ship_the_rest(run: TrainRun, record: RunRecord) -> bool:
    """Send what the tracker lacks of a finished run; return whether it has everything now."""
    try:
        with hold_run(run.folder):
            client = connect(run.tracking, run.storage)
            ship(client, record.mlflow_run_id, Journal(run.folder / "journal"), status="FINISHED")
    except (MlflowException, OSError) as error:
        logger.warning("the tracker may lack rows of this run: %s", error)
        return False
    return True


def _known_record(run: TrainRun, shard_set: ShardSet) -> RunRecord | None:
    record = load_record(run.folder)
    if record:
        check_identity(record, identity_of(run, shard_set.manifest))
    return record


def _start_record(run: TrainRun, shard_set: ShardSet) -> RunRecord:
    """Write the record of this start, with a new MLflow run at the first."""
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = hold_run(run.folder)
    try:
        record = _known_record(run, shard_set) or RunRecord(
            name=run.name, identity=identity_of(run, shard_set.manifest), key=uuid.uuid4().hex
        )
        record.save(run.folder)
        if not record.mlflow_run_id:
            record = replace(record, mlflow_run_id=_create_mlflow_run(run, record, shard_set))
        record = replace(record, num_starts=record.num_starts + 1)
        record.save(run.folder)
    finally:
        lock.close()
    _tag_start(run, record)
    return record


def _create_mlflow_run(run: TrainRun, record: RunRecord, shard_set: ShardSet) -> str:
    client = connect(run.tracking, run.storage)
    return create_run(
        client,
        experiment_id(client, run.tracking, run.storage),
        key=record.key,
        name=run.name,
        parameters=record.identity,
        tags={"run_folder": str(run.folder), **git_state(Path.cwd())},
        dataset=(shard_set.folder.name, str(shard_set.folder), shard_set.manifest.digest),
    )


def _tag_start(run: TrainRun, record: RunRecord) -> None:
    """Tell the tracker where this start runs; a tracker that is down does not stop a run that it knows."""
    placement = {
        "cluster": f"{run.cluster.num_workers} workers of {run.cluster.cpus_per_worker} CPUs"
        + (" and a GPU" if run.cluster.use_gpu else ""),
        "home": str(run.storage.home),
        "shards": str(run.shards),
        "tracking": without_credentials(tracking_uri(run.tracking, run.storage)),
    }
    try:
        client = connect(run.tracking, run.storage)
        client.update_run(record.mlflow_run_id, status="RUNNING")
        tags = {f"start_{record.num_starts}.{name}": value for name, value in placement.items()}
        set_tags(client, record.mlflow_run_id, tags)
        client.log_text(record.mlflow_run_id, config_text(run), "config.yaml")
    except Exception as error:
        if record.num_starts == 1:
            raise
        logger.warning("the tracker does not answer, training goes on: %s", str(error).splitlines()[0])


def config_text(run: TrainRun) -> str:
    """Return the resolved configuration as YAML, itself a valid ``--config``, without credentials."""
    return yaml.safe_dump(_plain(asdict(without_secrets(run))), sort_keys=False)


def _plain(value: Any) -> Any:  # noqa: ANN401  any tree of a configuration's values
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, Path) else value


def _fit_on_cluster(run: TrainRun, record: RunRecord, shard_set: ShardSet) -> TrainOutcome:
    import ray

    uri = tracking_uri(run.tracking, run.storage)
    coordinator = start_coordinator(run.folder, uri, keep=(run.training.keep_best, run.training.keep_last))
    git = git_state(Path.cwd())
    lineage = {
        "run": run.name,
        "mlflow_run_id": record.mlflow_run_id,
        "shards_digest": shard_set.manifest.digest,
        "git_commit": git["mlflow.source.git.commit"],
        "git_dirty": git["git.dirty"],
    }
    task = WorkerTask(run=run, coordinator=coordinator, config_text=config_text(run), lineage=lineage)
    num_steps = num_training_steps(run.training, shard_set.manifest.splits[run.train_split])
    status = "FAILED"
    try:
        with _followed(coordinator, num_steps):
            build_trainer(run, task, start=record.num_starts).fit()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except TrainingFailedError as error:
        raise RuntimeError(_failure_text(run, error)) from error
    finally:
        is_tracked = bool(ray.get(coordinator.finish.remote(status)))
    if not is_tracked:
        logger.warning("the tracker lacks some rows; they are in %s", run.folder / "journal")
    finished = load_record(run.folder) or record
    return _outcome(run, finished, is_tracked=is_tracked)


@contextmanager
def _followed(coordinator: Any, num_steps: int) -> Iterator[None]:  # noqa: ANN401  Ray's handles have no type
    """Log the run's progress a few times a minute while it trains."""
    import ray

    is_over = threading.Event()
    log = ProgressLog(num_steps)

    def follow() -> None:
        while not is_over.wait(_FOLLOW_SECONDS):
            log.show(ray.get(coordinator.progress.remote()))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        progress: Progress = ray.get(coordinator.progress.remote())
        log.show(progress, is_last=True)


def _failure_text(run: TrainRun, error: Exception) -> str:
    failures = getattr(error, "worker_failures", None) or {}
    causes = [f"rank {rank}: {_last_line(failure)}" for rank, failure in sorted(failures.items())]
    return (
        f"training failed: {causes[0] if causes else _last_line(error)}; "
        f"after mending the cause, run the same command again to resume {run.name} from its last checkpoint"
    )


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _outcome(run: TrainRun, record: RunRecord, *, is_tracked: bool) -> TrainOutcome:
    best, latest = record.best, record.latest
    if not best or not latest:
        raise RuntimeError(f"run {run.name} ended without a checkpoint; look at {run.folder}")
    return TrainOutcome(
        name=run.name,
        step=latest.step,
        mlflow_run_id=record.mlflow_run_id,
        best_checkpoint=checkpoint_folder(run.folder, best),
        validation_loss_nats=best.metrics.get("validation_loss_nats", float("nan")),
        is_tracked=is_tracked,
    )
