"""Search hyperparameters with many trials on a Ray cluster. The same command again resumes the search.

Examples:
    captioning tune --shards data/coco-shards --name search                        # learning rate and hidden size
    captioning tune --shards data/coco-shards --name search --search search.yaml --num-trials 50 --then train
    captioning tune --shards data/coco-shards --name search --search search.yaml --dry-run    # its space and duration

A search file is YAML with one line per setting; the distributions are choice, uniform, loguniform, int and logint:
    optimizer.learning_rate: loguniform(1e-4, 1e-2)
    model.hidden_size: choice([256, 512, 1024])
    model.dropout: uniform(0.1, 0.6)
"""

import logging
from typing import TYPE_CHECKING

from captioning.generation.config import GenerationConfig
from cluster.config import TrainRun
from cluster.job_progress import duration
from cluster.search.space.config import TUNE_PRESETS, TuneRun
from cluster.settings import as_plain
from jobs.console.dry_run_view import show_rehearsal
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.progress_bars import training_bar
from jobs.console.search_view import search_view
from jobs.console.tables import show_table

if TYPE_CHECKING:
    from cluster.search.estimate import SearchEstimate
    from cluster.search.plan import SearchPlan
    from cluster.search.tuner import SearchOutcome

logger = logging.getLogger(__name__)

_BATCH_SIZE = 32  # the default of captioning evaluate


def main(invocation: Invocation[TuneRun]) -> None:
    """Run the search to its end, or describe it with ``--dry-run``."""
    run = invocation.settings
    from cluster.search.plan import plan_search
    from cluster.search.tuner import tune

    if invocation.dry_run:
        _describe(plan_search(run), as_json=invocation.json)
        return
    with search_view(run.search) as view:
        outcome = tune(run, show=view.show, show_extraction=view.show_extraction)
    _report(outcome)
    then = _train_best(run, outcome) if run.search.then == "train" else {}
    if invocation.json:
        write_json(as_plain(outcome) | then)


def _report(outcome: "SearchOutcome") -> None:
    logger.info(
        "search %s: best of %d trials is %s with score %.4g; %d epochs trained in total",
        outcome.name,
        outcome.num_trials,
        outcome.best_trial,
        outcome.score,
        outcome.num_epochs,
    )
    show_table("Best", ("setting", "value"), [(key, f"{value}") for key, value in outcome.best_point.items()])
    logger.info("page: %s", outcome.page)
    log_next("train", "--config", outcome.best_config)
    if not outcome.is_tracked:
        logger.warning(
            "MLflow lacks part of this search; run the same command again to backfill it once the server answers"
        )


def _train_best(run: TuneRun, outcome: "SearchOutcome") -> dict[str, object]:
    """Train the best point at full length, evaluate the model on the validation split and register it.

    Returns:
        The name of the run, the scores by name and the registered version, for the JSON document.
    """
    from cluster.data.shard_set import ShardSet
    from cluster.promotion.pages import write_pages
    from cluster.registry.models import resolve_model
    from cluster.registry.registration import register
    from cluster.registry.scores import evaluate_and_log
    from cluster.registry.versions import version_of
    from cluster.search.plan import best_run, plan_search
    from cluster.search.trials import load_trials
    from cluster.tracking.client import connect
    from cluster.training.trainer import fit

    (best,) = [trial for trial in load_trials(run.folder) if trial.name == outcome.best_trial]
    wanted: TrainRun = best_run(plan_search(run).run, best)  # as in best.yaml; reads features if the trials read them
    logger.info("training the best point at full length, as run %s", wanted.name)
    with training_bar() as show_step:
        trained = fit(wanted, show_step=show_step)
    client = connect(run.tracking, run.storage)
    model = resolve_model(str(wanted.folder), client)
    shard_set = ShardSet(run.shards_folder(), cache_gib=run.storage.cache_gib)
    evaluation = evaluate_and_log(
        model,
        shard_set,
        run.validation_split,
        client,
        storage=run.storage,
        generation=GenerationConfig(),
        batch_size=_BATCH_SIZE,
    )
    if page := write_pages(model, evaluation, shard_set, client, run.storage):
        logger.info("page: %s", page)
    version = version_of(model, run.name, client) or register(model, run.name, client)
    show_table("Scores", ("score", "value"), [(name, f"{value:.4f}") for name, value in evaluation.scores.items()])
    logger.info("version %s of %s is the challenger", version.version, run.name)
    log_next("promote", run.name, "--shards", run.shards_folder())
    return {"best_run": trained.name, "scores": evaluation.scores, "version": version.version}


def _describe(plan: "SearchPlan", *, as_json: bool) -> None:
    """Log the search space, the trials that fit on the cluster at once, and an estimate of the duration."""
    from cluster.checks.rehearsal import rehearse
    from cluster.search.estimate import estimate_search

    run = plan.run
    show_table("Search space", ("setting", "values"), list(plan.space.description().items()))
    rehearsal = rehearse(plan.base, plan.trial_data(), extracts=plan.needs_extraction)
    show_rehearsal(rehearsal)
    at_once = rehearsal.max_workers // rehearsal.num_workers
    logger.info(
        "would run %d trials of at most %d epochs, %d at once on this cluster, into %s",
        plan.num_trials,
        run.search.max_epochs,
        at_once,
        run.folder,
    )
    estimate = rehearsal.timing and estimate_search(
        run.search,
        rehearsal.timing,
        run=plan.base,
        splits=plan.shard_set.manifest.splits,
        num_trials=plan.num_trials,
        trials_at_once=at_once,
        extracts=plan.needs_extraction,
    )
    if estimate:
        _show_estimate(estimate, run)
    if as_json:
        nodes = [node._asdict() for node in rehearsal.nodes]
        plan_document = {"space": plan.space.description(), "num_trials": plan.num_trials, "nodes": nodes}
        write_json(plan_document | {"trials_at_once": at_once} | (as_plain(estimate) if estimate else {}))


def _show_estimate(estimate: "SearchEstimate", run: TuneRun) -> None:
    logger.info(
        "about %s, at %.2f s per step as measured on %s: at most %d steps per trial, %d epochs in total if %s",
        duration(estimate.seconds),
        estimate.seconds_per_step,
        estimate.host,
        estimate.steps_per_trial,
        estimate.num_epochs,
        "no trial is stopped"
        if run.search.scheduler == "none"
        else f"one trial in {run.search.reduction_factor} passes each rung",
    )
    if estimate.extraction_seconds:
        logger.info("feature extraction before the trials: about %s", duration(estimate.extraction_seconds))


JOB = Job(
    name="tune",
    settings=TuneRun,
    run=main,
    description=__doc__,
    presets=TUNE_PRESETS,
    loads=("torch", "ray", "mlflow"),
)
