"""A search under Ray Tune: described first, then started and followed to its end.

Each start of a driver is a Tune run of its own, for Tune's snapshot is written now and then, and holds how many trials
run at once on a cluster that may be another by now. What was tried and how far it came is in the search's own folder,
from which follows what is trained next; a trial that goes on is another of Tune's trials, which resumes the same run.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray.tune
from mlflow import MlflowClient

from cluster.checks.data import check_data, check_home
from cluster.checks.job import check_job
from cluster.checks.result import require
from cluster.git import git_state
from cluster.resources.capacity import resources_per_worker, total_capacity
from cluster.resources.session import cluster_session
from cluster.runs.record import RunRecord, load_record, lock_run
from cluster.search.artifacts import write_search_files
from cluster.search.features import extract_features
from cluster.search.plan import SearchPlan, best_run, plan_search
from cluster.search.scheduler import Search, SearchProgress
from cluster.search.space.asha import rungs_of
from cluster.search.space.config import TuneRun
from cluster.search.tracking import SearchTracker
from cluster.search.trainable import TrialPlan, TrialProcess
from cluster.search.trials import SearchRecord, Trial, check_same_search, load_search, load_trials, trial_run
from cluster.search.tune_adapters import NextTrial, TellSearch, follow
from cluster.tracking.client import connect, create_run, experiment_id, tracking_uri
from cluster.training.start import lineage_of

logger = logging.getLogger(__name__)

_FOLLOWER_BYTES = 2.0**20  # reserved by a trial whose workers reserve the rest; Tune takes none that reserves nothing
_LAST_TRACKING_SECONDS = {"FINISHED": 60.0, "FAILED": 20.0, "KILLED": 1.5}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOutcome:
    """How a search ended."""

    name: str
    mlflow_run_id: str
    best_trial: str
    best_point: dict[str, Any]
    score: float
    num_trials: int
    num_epochs: int
    """That all trials took together."""
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
    """Search to the end, from where an earlier start of the same search left it.

    Args:
        run: what to search.
        show: called about once a second.
        show_extraction: called with the number of images whose features are done, and of all.

    Raises:
        FileNotFoundError, ValueError: as ``plan_search`` does; or it is another search than that of its name.
        ConnectionError: the cluster or, at the first start, the tracker does not answer.
        BlockingIOError: the search has a live driver.
        RuntimeError: no trial has a score.
        KeyboardInterrupt, SystemExit: it was told to end.
    """
    plan = plan_search(run)
    check_home(run.storage.home)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with lock_run(plan.folder):
        record = load_search(plan.folder)
        if record:
            check_same_search(record, plan.record())
        with cluster_session(run.cluster):
            is_known = record is not None and bool(record.mlflow_run_id)
            require(check_job(run, shard_set=plan.shard_set, needs_tracker=not is_known, num_runs=plan.num_trials))
            if plan.extracts:
                extract_features(plan.run, plan.space, plan.shard_set, progress=show_extraction)
            check_data(plan.run, plan.readable())
            return _tune_on_cluster(plan, record or plan.record(), show)


def _tune_on_cluster(plan: SearchPlan, record: SearchRecord, show: Callable[[SearchProgress], None]) -> SearchOutcome:
    run = plan.run

    def reach() -> tuple[MlflowClient, str]:
        client = connect(run.tracking, run.storage)
        return client, experiment_id(client, run.tracking, run.storage)

    dataset = (plan.shard_set.folder.name, str(plan.shard_set.folder), plan.shard_set.manifest.digest)
    if not record.mlflow_run_id:
        record.save(plan.folder)  # its key finds the parent run again
        run_id = create_run(
            *reach(),
            key=record.key,
            name=run.name,
            parameters={f"space.{key}": text for key, text in record.space.items()} | record.settings | record.identity,
            tags={"run_folder": str(plan.folder), **git_state(Path.cwd())},
            dataset=dataset,
        )
        record = replace(record, mlflow_run_id=run_id)
    record = replace(record, num_starts=record.num_starts + 1, is_finished=False)
    record.save(plan.folder)
    search = Search(
        run,
        plan.space,
        load_trials(plan.folder),
        num_trials=plan.num_trials,
        begin=lambda trial: _prepare(plan, trial, tracker),
    )
    tracker = SearchTracker(reach, search, record, folder=plan.folder, dataset=dataset)
    tracker.start()
    status, files = "FAILED", {}
    try:
        if not search.is_over:
            follow(lambda: _build_tuner(plan, search, record).fit(), search, show)
        files = write_search_files(plan.folder, plan.space, search, record, best_run=lambda trial: best_run(run, trial))
        status = "FINISHED" if search.progress().best else "FAILED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        is_tracked = tracker.finish(status, files, seconds=_LAST_TRACKING_SECONDS[status])
    replace(record, is_finished=True).save(plan.folder)
    return _outcome(plan, search, record, is_tracked=is_tracked)


def _build_tuner(plan: SearchPlan, search: Search, record: SearchRecord) -> ray.tune.Tuner:
    """Describe the search to Ray; nothing starts yet."""
    run, cluster = plan.run, plan.run.cluster
    is_alone = cluster.max_workers == 1
    readable = plan.readable()
    task = TrialPlan(
        run=run,
        tracking_uri=tracking_uri(run.tracking, run.storage),
        num_samples=plan.num_samples,
        lineage=lineage_of(readable) | {"search": run.name},
        shard_set=readable,
    )
    resources = resources_per_worker(cluster) if is_alone else {"memory": _FOLLOWER_BYTES}
    return ray.tune.Tuner(
        ray.tune.with_resources(ray.tune.with_parameters(TrialProcess, plan=task), resources),
        tune_config=ray.tune.TuneConfig(
            search_alg=NextTrial(search),
            num_samples=plan.num_trials * len(rungs_of(run.search)),
            # A group of workers is reserved as a whole, so that trials never wait for each other with half a group.
            max_concurrent_trials=None if is_alone else max(1, total_capacity(cluster) // cluster.min_workers),
            # After an error of CUDA, every further trial in the same process would have it.
            reuse_actors=is_alone and not cluster.use_gpu,
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']:04d}-until-{trial.config['until']}",
        ),
        run_config=ray.tune.RunConfig(
            name=f"start-{record.num_starts}",
            storage_path=str(plan.folder / "ray"),
            callbacks=[TellSearch(search)],
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=ray.tune.FailureConfig(max_failures=run.search.max_failures),
            verbose=0,
        ),
    )


def _prepare(plan: SearchPlan, trial: Trial, tracker: SearchTracker) -> Trial:
    """Write the record of a trial's run, unless it has one; its checkpoints are to name its MLflow run."""
    run = trial_run(plan.run, trial, tracking_uri="")
    identity = plan.identity_of(run)
    trial = replace(trial, mlflow_run_id=trial.mlflow_run_id or tracker.begin(trial, identity))
    if load_record(run.folder) is None:
        run.folder.mkdir(parents=True, exist_ok=True)
        RunRecord(
            name=run.name,
            identity=identity,
            mlflow_run_id=trial.mlflow_run_id,
            key=trial.key,
            best_by=run.validation.best_by,
            checkpoints_at=run.storage.checkpoints,
        ).save(run.folder)
    return trial


def _outcome(plan: SearchPlan, search: Search, record: SearchRecord, *, is_tracked: bool) -> SearchOutcome:
    progress = search.progress()
    best = progress.best
    score = best.best(plan.run.search.mode) if best else None
    if best is None or score is None:
        reasons = [f"{trial.name}: {trial.reason}" for trial in progress.trials if trial.reason]
        raise RuntimeError(
            f"no trial of search {plan.run.name} has a score"
            + (f"; the first that failed, {reasons[0]}" if reasons else "")
        )
    return SearchOutcome(
        name=plan.run.name,
        mlflow_run_id=record.mlflow_run_id,
        best_trial=best.name,
        best_point=best.point,
        score=score,
        num_trials=len(progress.trials),
        num_epochs=progress.num_epochs_done,
        best_config=plan.folder / "best.yaml",
        page=plan.folder / "search.html",
        is_tracked=is_tracked,
    )
