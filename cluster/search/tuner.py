"""A whole search under Ray Tune: plan it, start it, and run it to its end.

Each start of a search is a new Tune run. Each rung of a trial is a new Tune trial, which resumes the same training run.
The docstring of the package says why.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray.tune
from mlflow import MlflowClient
from mlflow.entities import DatasetInput

from cluster.checks.data import check_data, check_home, fetch_weights_here
from cluster.checks.job import check_job
from cluster.checks.result import require
from cluster.git import git_state
from cluster.resources.capacity import resources_per_worker, total_capacity
from cluster.resources.session import cluster_session
from cluster.runs.claim import Claim, claimed
from cluster.runs.record import RunRecord, format_version_of, load_record, lock_run
from cluster.search.artifacts import BEST_NAME, PAGE_NAME, write_artifacts
from cluster.search.features import extract_features
from cluster.search.plan import SearchPlan, best_run, plan_search
from cluster.search.scheduler import SearchProgress, SearchScheduler
from cluster.search.space.asha import rung_epochs
from cluster.search.space.config import TuneRun
from cluster.search.tracking import SearchTracker
from cluster.search.trainable import TrialContext, TrialProcess
from cluster.search.trials import SearchRecord, Trial, check_same_search, load_search, load_trials, trial_run
from cluster.search.tune_adapters import NextTrialSearcher, SchedulerCallback, run_tuner
from cluster.tracking.client import connect, connect_before_start, create_run, tracking_uri
from cluster.tracking.experiment import experiment_id
from cluster.training.start import datasets_of, lineage_of

logger = logging.getLogger(__name__)

# Memory that a trial's process reserves if Ray Train's workers reserve the actual resources: Tune rejects an empty
# request.
_NESTED_BYTES = 2.0**20
_TRACKER_SECONDS = {"FINISHED": 60.0, "FAILED": 20.0, "KILLED": 1.5}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOutcome:
    """The result of a search."""

    name: str
    mlflow_run_id: str
    best_trial: str
    best_point: dict[str, Any]
    score: float
    num_trials: int
    num_epochs: int
    """Number of epochs of all trials together."""
    best_config: Path
    page: Path
    is_tracked: bool
    """Whether the tracker has everything."""


def tune(
    run: TuneRun,
    *,
    show: Callable[[SearchProgress], None] = lambda progress: None,
    show_extraction: Callable[[int, int], None] = lambda done, total: None,
) -> SearchOutcome:
    """Run a search to its end; resume it if it was started before.

    Args:
        run: the search.
        show: function that is called with the progress about once a second.
        show_extraction: function that is called with the number of images with features, and the number of all images.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the search cannot work with these settings, another search has its name, or another home folder owns
            its checkpoints.
        ConnectionError: the cluster or, at the first start, the tracker does not answer.
        BlockingIOError: another driver is running the search.
        RuntimeError: no trial has a score.
        KeyboardInterrupt, SystemExit: the process received SIGINT or SIGTERM.
    """
    plan = plan_search(run)
    check_home(run.storage.home)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with lock_run(plan.folder), claimed(plan.folder, run.storage) as claim:
        record = load_search(plan.folder)
        if record:
            check_same_search(record, plan.record())
        is_known = record is not None and bool(record.mlflow_run_id)
        if not is_known:
            connect_before_start(run.tracking, run.storage)
        fetch_weights_here(run.model.backbone, run.model.weights, run.cluster)
        with cluster_session(run.cluster):
            logger.info("checking nodes")
            require(check_job(run, shard_set=plan.shard_set, needs_tracker=not is_known, num_runs=plan.num_trials))
            log_summary(plan)
            if plan.extracts:
                extract_features(plan.run, plan.space, plan.shard_set, progress=show_extraction)
            check_data(plan.run, plan.trial_data())
            return _tune_on_cluster(plan, record or plan.record(), claim, show)


def log_summary(plan: SearchPlan) -> None:
    """Log the size of the search and where its results go."""
    run = plan.run
    logger.info(
        "search %s: up to %d trials of up to %d epochs (%s, %s), %d training images, each trial on %s",
        run.name,
        plan.num_trials,
        run.search.max_epochs,
        run.search.sampler,
        run.search.scheduler,
        plan.num_samples,
        run.cluster.workers_text,
    )
    for parameter in plan.space.parameters:
        logger.info("%s: %s", parameter.key, parameter)
    logger.info("folder:  %s", plan.folder)
    logger.info("tracker: %s", tracking_uri(run.tracking, run.storage))


def _tune_on_cluster(
    plan: SearchPlan, record: SearchRecord, claim: Claim | None, show: Callable[[SearchProgress], None]
) -> SearchOutcome:
    run = plan.run

    def connect_tracker() -> tuple[MlflowClient, str]:
        client = connect(run.tracking, run.storage)
        return client, experiment_id(client, run.tracking, run.storage)

    datasets = datasets_of(run, plan.shard_set)
    record = _start_record(plan, record, connect_tracker, datasets)
    scheduler = SearchScheduler(
        run,
        plan.space,
        load_trials(plan.folder),
        num_trials=plan.num_trials,
        prepare=lambda trial: _prepare_trial(plan, trial, tracker),
    )
    tracker = SearchTracker(connect_tracker, scheduler, record, folder=plan.folder, datasets=datasets)
    tracker.start()
    status, artifacts = "FAILED", {}
    try:
        if not scheduler.is_done:
            run_tuner(lambda: _build_tuner(plan, scheduler, record, claim).fit(), scheduler, show)
        artifacts = write_artifacts(
            plan.folder,
            plan.space,
            scheduler,
            record,
            best_run=lambda trial: best_run(run, trial),
            tracking_uri=tracking_uri(run.tracking, run.storage),
        )
        status = "FINISHED" if scheduler.progress().best else "FAILED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        is_tracked = tracker.finish(status, artifacts, seconds=_TRACKER_SECONDS[status])
    replace(record, is_finished=True).save(plan.folder)
    return _outcome(plan, scheduler, record, is_tracked=is_tracked)


def _start_record(
    plan: SearchPlan,
    record: SearchRecord,
    connect_tracker: Callable[[], tuple[MlflowClient, str]],
    datasets: Sequence[DatasetInput],
) -> SearchRecord:
    """Count one more start in the record; at the first start, create the parent run in the tracker."""
    if not record.mlflow_run_id:
        # Before MLflow: if this process is killed after it created the run, the next start finds the run by the key.
        record.save(plan.folder)
        run_id = create_run(
            *connect_tracker(),
            key=record.key,
            name=plan.run.name,
            parameters={f"space.{key}": text for key, text in record.space.items()} | record.settings | record.identity,
            tags={"run_folder": str(plan.folder), **git_state()},
            datasets=datasets,
        )
        record = replace(record, mlflow_run_id=run_id)
    record = replace(record, num_starts=record.num_starts + 1, is_finished=False)
    record.save(plan.folder)
    return record


def _build_tuner(
    plan: SearchPlan, scheduler: SearchScheduler, record: SearchRecord, claim: Claim | None
) -> ray.tune.Tuner:
    """Return Ray Tune's tuner for this start of the search; start nothing."""
    run, cluster = plan.run, plan.run.cluster
    is_in_process = cluster.max_workers == 1
    shard_set = plan.trial_data()
    context = TrialContext(
        run=run,
        tracking_uri=tracking_uri(run.tracking, run.storage),
        num_samples=plan.num_samples,
        lineage=lineage_of(shard_set) | {"search": run.name},
        shard_set=shard_set,
        claim=claim,
    )
    resources = resources_per_worker(cluster) if is_in_process else {"memory": _NESTED_BYTES}
    return ray.tune.Tuner(
        ray.tune.with_resources(ray.tune.with_parameters(TrialProcess, context=context), resources),
        tune_config=ray.tune.TuneConfig(
            search_alg=NextTrialSearcher(scheduler),
            # A trial that ran out of memory takes one more, each time with fewer at once.
            num_samples=plan.num_trials * len(rung_epochs(run.search)) + total_capacity(cluster),
            # Only as many trials as fit with all their workers: two trials with half of theirs would wait forever.
            max_concurrent_trials=None if is_in_process else max(1, total_capacity(cluster) // cluster.min_workers),
            # Not with CUDA: after a CUDA error, every further trial in the same process would fail.
            reuse_actors=is_in_process and not cluster.use_gpu,
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']:04d}-until-{trial.config['until']}",
        ),
        run_config=ray.tune.RunConfig(
            name=f"start-{record.num_starts}",
            storage_path=str(plan.folder / "ray"),
            callbacks=[SchedulerCallback(scheduler)],
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=ray.tune.FailureConfig(max_failures=run.search.max_failures),
            verbose=0,
        ),
    )


def _prepare_trial(plan: SearchPlan, trial: Trial, tracker: SearchTracker) -> Trial:
    """Create a trial's MLflow run and the record of its training run, if they do not exist."""
    run = trial_run(plan.run, trial, tracking_uri="")
    identity = plan.identity_of(run)
    trial = replace(trial, mlflow_run_id=trial.mlflow_run_id or tracker.create_trial_run(trial, identity))
    if load_record(run.folder) is None:
        run.folder.mkdir(parents=True, exist_ok=True)
        RunRecord(
            name=run.name,
            identity=identity,
            mlflow_run_id=trial.mlflow_run_id,
            key=trial.key,
            best_by=run.validation.best_by,
            checkpoints_at=run.storage.checkpoints,
            format_version=format_version_of(run),
        ).save(run.folder)
    return trial


def _outcome(plan: SearchPlan, scheduler: SearchScheduler, record: SearchRecord, *, is_tracked: bool) -> SearchOutcome:
    progress = scheduler.progress()
    best = progress.best
    score = best.best(plan.run.search.mode) if best else None
    if best is None or score is None:
        reasons = [f"{trial.name}: {trial.reason}" for trial in progress.trials if trial.state == "failed"]
        raise RuntimeError(
            f"no trial of search {plan.run.name} has a score"
            + (f"; the first failed trial is {reasons[0]}" if reasons else "")
        )
    return SearchOutcome(
        name=plan.run.name,
        mlflow_run_id=record.mlflow_run_id,
        best_trial=best.name,
        best_point=best.point,
        score=score,
        num_trials=len(progress.trials),
        num_epochs=progress.num_epochs_done,
        best_config=plan.folder / BEST_NAME,
        page=plan.folder / PAGE_NAME,
        is_tracked=is_tracked,
    )
