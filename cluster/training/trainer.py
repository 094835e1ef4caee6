"""A training run under Ray Train: build the trainer, start it, and follow it to its end."""

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig

from captioning.model.caption_model import count_parameters
from captioning.training.loop import num_cross_entropy_steps, num_training_steps, steps_text
from cluster.checks.data import check_data, check_home
from cluster.checks.job import check_job
from cluster.checks.result import require
from cluster.config import TrainRun
from cluster.coordination.messages import CoordinatorSettings, WorkerConfig
from cluster.data.shard_set import ShardSet
from cluster.reports.run_page import page_at_the_end
from cluster.resources.capacity import resources_per_worker
from cluster.resources.environment import GROUP_START_SECONDS
from cluster.resources.session import cluster_session
from cluster.runs.claim import Claim, claimed
from cluster.runs.identity import adds_self_critical, config_text, identity_of
from cluster.runs.record import RunRecord, driving, load_record, local_checkpoint, recover_record
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.tracking.client import tracking_uri
from cluster.training.callbacks import FailureCallback, WorkerGroupNotifier
from cluster.training.driver import Driver, start_coordinator
from cluster.training.group_trainer import GroupTrainer, ProcessGroupConfig
from cluster.training.progress import StepProgress
from cluster.training.start import known_record, lineage_of, mark_killed, prepare_start, ship_the_rest, start_record
from cluster.worker.async_validation import validation_config
from cluster.worker.worker import train_worker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOutcome:
    """The result of a finished run."""

    name: str
    step: int
    """Step of the latest checkpoint."""
    mlflow_run_id: str
    best_checkpoint: Path
    validation_loss_nats: float
    """Validation loss of the best checkpoint, in nats per word; nan if it has none."""
    is_tracked: bool
    """Whether the tracker has every row of the run's journal."""
    stopped_early: str = ""
    """Why the run ended before its last step; empty if it did not."""


def build_trainer(config: WorkerConfig, *, start: str) -> GroupTrainer:
    """Return Ray's trainer of a run; nothing starts yet.

    Args:
        config: configuration of all ranks.
        start: name of this start. Each start is a new Train run, because a run resumes from its own record and not from
            Ray's snapshot.
    """
    run, cluster = config.run, config.run.cluster
    callbacks: list[Any] = [  # Ray also accepts its internal kinds of callbacks, which its type hint leaves out
        FailureCallback(config.coordinator),
        WorkerGroupNotifier(config.coordinator, resize_wait_seconds=cluster.hang_seconds),
    ]
    return GroupTrainer(
        train_worker,
        train_loop_config={"config": config},
        backend_config=ProcessGroupConfig(backend="nccl" if cluster.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(cluster.min_workers, cluster.max_workers) if cluster.is_elastic else cluster.max_workers,
            elastic_resize_monitor_interval_s=cluster.resize_seconds,
            use_gpu=cluster.use_gpu,
            resources_per_worker=resources_per_worker(cluster),
        ),
        run_config=RunConfig(
            name=f"start-{start}",
            storage_path=str(run.folder / "ray"),
            # Unlimited for Ray: the coordinator knows why the last attempt ended, and decides whether to try again.
            failure_config=FailureConfig(max_failures=-1),
            callbacks=callbacks,
        ),
        validation_config=validation_config(run, config.coordinator),
    )


def fit(
    run: TrainRun,
    *,
    shard_set: ShardSet | None = None,
    claim: Claim | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    show_step: Callable[[StepProgress], None] | None = None,
) -> TrainOutcome:
    """Train to the end, from the last checkpoint if the run has one.

    Args:
        run: training run.
        shard_set: the run's shard set and features, if they have been checked already.
        claim: claim on checkpoints at a URL, if the run's search holds one.
        is_wanted: polled; when it returns False the run stops after a checkpoint, as on SIGTERM.
        show_step: function that is called after each step, instead of a log line every 10 s.

    Raises:
        FileNotFoundError, ValueError: a file is missing, the run cannot work so, or another home has its checkpoints.
        ConnectionError: the cluster or, at the run's first start, the tracker does not answer.
        BlockingIOError: another driver is running the run.
        RuntimeError: training failed, and there is no further attempt; the message says why.
        KeyboardInterrupt, SystemExit: a signal stopped the run, or it is no longer wanted; a checkpoint came first.
    """
    shard_set = check_data(run, shard_set)
    check_home(run.storage.home)
    warn_of_long_warmup(run, num_samples=shard_set.manifest.splits[run.train_split])
    with driving(run.folder), nullcontext(claim) if claim else claimed(run.folder, run.storage) as held:
        recover_record(run)
        if (record := known_record(run, shard_set)) and record.is_finished and not trains_on(run, record, shard_set):
            logger.info("run %s", ended_already(record))
            return _outcome(run, record, is_tracked=ship_the_rest(run, record))
        client = prepare_start(run, record)
        with cluster_session(run.cluster):
            logger.info("checking nodes")
            require(check_job(run, shard_set=shard_set, needs_tracker=client is not None))
            record = start_record(run, shard_set, client)
            log_summary(run, shard_set)
            lineage = lineage_of(shard_set) | {"run": run.name, "mlflow_run_id": record.mlflow_run_id}
            with page_at_the_end(run, record.mlflow_run_id, shard_set, lineage, is_wanted=is_wanted):
                try:
                    config = _worker_config(run, lineage, held)
                    is_tracked = _driver(config, record, shard_set, is_wanted, show_step).train(
                        lambda number: build_trainer(config, start=f"{record.num_starts}.{number}")
                    )
                except (KeyboardInterrupt, SystemExit):
                    mark_killed(run, record)  # here, because a signal may arrive before the driver handles signals
                    raise
        return _outcome(run, load_record(run.folder) or record, is_tracked=is_tracked)


def trains_on(run: TrainRun, record: RunRecord, shard_set: ShardSet) -> bool:
    """Return whether a run that ended has steps left under the settings of now."""
    is_longer = adds_self_critical(record, identity_of(run, shard_set.manifest, shard_set.features_digest))
    may_go_on = bool(record.stopped_early) and not record.history.stop_reason(run.validation.stop_after)
    return is_longer or may_go_on


def ended_already(record: RunRecord) -> str:
    """Return the name of a finished run and how it ended, as a phrase."""
    if not record.stopped_early:
        return f"{record.name} is finished already"
    return (
        f"{record.name} has stopped early at step {record.latest_step:,} ({record.stopped_early}); "
        "to train on, use a larger --validation.stop-after, or 0"
    )


def warn_of_long_warmup(run: TrainRun, *, num_samples: int) -> None:
    """Log a warning if the learning rate rises during more than a fifth of the training.

    The warm-up is not shortened, because it is part of the run's identity: an earlier run must resume with its own.

    Args:
        run: training run.
        num_samples: number of samples in the training split.
    """
    num_steps = num_cross_entropy_steps(run.training, num_samples)
    if run.optimizer.warmup_steps > max(1, num_steps // 5):
        logger.warning(
            "the warm-up of %d steps is longer than a fifth of the training (%d steps), so the learning rate is low "
            "for too long; use --optimizer.warmup-steps %d, or train for more epochs",
            run.optimizer.warmup_steps,
            num_steps,
            max(1, num_steps // 10),
        )


def _worker_config(run: TrainRun, lineage: dict[str, str], claim: Claim | None) -> WorkerConfig:
    """Start the run's coordinator, and return the configuration of all ranks."""
    logger.info("starting Ray Train")
    coordinator = start_coordinator(run.folder, _coordinator_settings(run, claim))
    return WorkerConfig(run=run, coordinator=coordinator, config_text=config_text(run), lineage=lineage, claim=claim)


def log_summary(run: TrainRun, shard_set: ShardSet) -> None:
    """Log the size of the run and where its results go."""
    splits, config = shard_set.manifest.splits, run.training
    logger.info(
        "run %s: %d training images, %d for validation, %s of %d images, on %s",
        run.name,
        splits[run.train_split],
        splits[run.validation_split],
        steps_text(config, splits[run.train_split]),
        config.batch_size,
        run.cluster.workers_text,
    )
    num_parameters = count_parameters(run.model, vocabulary_size=len(shard_set.vocabulary))
    average = f"; checkpoints have their moving average (decay {decay:g})" if (decay := run.training.ema_decay) else ""
    network = f"{run.model.backbone} and {run.model.decoder}"
    logger.info("model:   %s, %s parameters%s", network, f"{num_parameters:,}", average)
    logger.info("folder:  %s", run.folder)
    logger.info("tracker: %s", tracking_uri(run.tracking, run.storage))


def _driver(
    config: WorkerConfig,
    record: RunRecord,
    shard_set: ShardSet,
    is_wanted: Callable[[], bool],
    show_step: Callable[[StepProgress], None] | None,
) -> Driver:
    run = config.run
    tracker = tracking_uri(run.tracking, run.storage)
    return Driver(
        run,
        config.coordinator,
        num_steps=num_training_steps(run.training, shard_set.manifest.splits[run.train_split]),
        about={"run": run.name, "mlflow_run_id": record.mlflow_run_id, "tracking": tracker},
        is_wanted=is_wanted,
        show_step=show_step,
    )


def _coordinator_settings(run: TrainRun, claim: Claim | None) -> CoordinatorSettings:
    return CoordinatorSettings(
        tracking_uri=tracking_uri(run.tracking, run.storage),
        keep_best=run.training.keep_best,
        keep_last=run.training.keep_last,
        stop_after=run.validation.stop_after if run.validation.where == "beside" else 0,
        batch_size=run.training.batch_size,
        max_restarts=run.cluster.max_restarts,
        max_preemptions=run.cluster.max_preemptions,
        hang_seconds=run.cluster.hang_seconds,
        start_seconds=run.cluster.hang_seconds + GROUP_START_SECONDS,
        driver_pid=os.getpid(),
        claim=claim,
    )


def _outcome(run: TrainRun, record: RunRecord, *, is_tracked: bool) -> TrainOutcome:
    if not is_tracked:
        logger.warning(
            "the tracker lacks some metrics; once it answers, send them with captioning track replay %s", run.folder
        )
    best, latest = record.best, record.latest
    if not best or not latest:
        raise RuntimeError(f"run {run.name} ended without a checkpoint; look for the cause in {run.folder}")
    return TrainOutcome(
        name=run.name,
        step=latest.step,
        mlflow_run_id=record.mlflow_run_id,
        best_checkpoint=local_checkpoint(run.folder, record, best),
        validation_loss_nats=best.metrics.get(VALIDATION_LOSS, float("nan")),
        is_tracked=is_tracked,
        stopped_early=record.stopped_early,
    )
