"""Search the settings that train the best model: many trials on a Ray cluster. The same command again goes on.

Examples:
    captioning tune --shards shards --name search                            # learning rate and hidden size
    captioning tune --shards shards --name search --search search.yaml --num-trials 50 --then train
    captioning tune --shards shards --name search --search search.yaml --dry-run     # what it would take

A search file holds a line a setting, such as
    optimizer.learning_rate: loguniform(1e-4, 1e-2)
    model.hidden_size: choice([256, 512, 1024])
    model.dropout: uniform(0.1, 0.6)
and knows int(A, B) and logint(A, B) as well.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.config import TrainRun
from cluster.search_config import TUNE_PRESETS, TuneRun
from jobs.cli import run_job
from jobs.output import plain, write_json
from jobs.parsing import parse
from jobs.terminal import show_table
from jobs.trials_view import search_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from cluster.models import ResolvedModel
    from cluster.search_plan import SearchPlan
    from cluster.tuner import SearchOutcome

logger = logging.getLogger(__name__)

_BEAM_SIZE, _BATCH_SIZE = 3, 32


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and search to the end."""
    invocation = parse(
        TuneRun,
        arguments,
        default=TUNE_PRESETS["default"][1],
        job="tune",
        description=__doc__ or "",
        presets=TUNE_PRESETS,
    )
    run = invocation.settings
    from cluster.search_plan import plan_search
    from cluster.tuner import tune

    if invocation.dry_run:
        _describe(plan_search(run), as_json=invocation.json)
        return
    with search_view(run.search) as view:
        outcome = tune(run, show=view.show, show_extraction=view.show_extraction)
    _report(outcome)
    then = _train_best(run, outcome) if run.search.then == "train" else {}
    if invocation.json:
        write_json(plain(outcome) | then)


def _report(outcome: "SearchOutcome") -> None:
    logger.info(
        "search %s: %s is the best of %d trials, with %.4g, after %d epochs in all",
        outcome.name,
        outcome.best_trial,
        outcome.num_trials,
        outcome.score,
        outcome.num_epochs,
    )
    show_table("Best", ("setting", "value"), [(key, f"{value}") for key, value in outcome.best_point.items()])
    logger.info("plots:  %s", outcome.page)
    logger.info("next:   captioning train --config %s", outcome.best_config)
    if not outcome.is_tracked:
        logger.warning("the tracker lacks some of it; the same command again brings it in once it answers")


def _train_best(run: TuneRun, outcome: "SearchOutcome") -> dict[str, object]:
    """Train the best at full length, evaluate it on the validation split and register it."""
    from cluster.data import ShardSet
    from cluster.evaluation_cache import CACHE_FOLDER, cached_evaluation
    from cluster.models import resolve_model
    from cluster.registering import register
    from cluster.registry import log_evaluation
    from cluster.search_plan import best_run, plan_search
    from cluster.tracking import connect
    from cluster.trainer import fit
    from cluster.trials import load_trials

    (best,) = [trial for trial in load_trials(run.folder) if trial.name == outcome.best_trial]
    wanted: TrainRun = best_run(plan_search(run).run, best)  # as best.yaml has it, on features if trials read any
    logger.info("training the best at full length: %s", wanted.name)
    trained = fit(wanted)
    client = connect(run.tracking, run.storage)
    model = resolve_model(str(wanted.folder), client)
    evaluation = cached_evaluation(
        model,
        ShardSet(run.shards_folder(), cache_gib=run.storage.cache_gib),
        run.validation_split,
        beam_size=_BEAM_SIZE,
        batch_size=_BATCH_SIZE,
        cache=run.storage.home / CACHE_FOLDER,
    )
    log_evaluation(model, evaluation, client)
    version = _registered(model, run.name, client) or register(model, run.name, client)
    show_table("Scores", ("score", "value"), [(name, f"{value:.4f}") for name, value in evaluation.scores.items()])
    logger.info("version %s of %s is the challenger; next: captioning promote %s", version.version, run.name, run.name)
    return {"best_run": trained.name, "scores": evaluation.scores, "version": version.version}


def _registered(model: "ResolvedModel", name: str, client: "MlflowClient") -> "ModelVersion | None":
    """Return the version that an earlier start has made of the same checkpoint, if there is one."""
    return next(
        (
            version
            for version in client.search_model_versions(f"name = '{name}'")
            if (version.run_id, version.tags.get("step")) == (model.mlflow_run_id, str(model.description.step))
        ),
        None,
    )


def _describe(plan: "SearchPlan", *, as_json: bool) -> None:
    """Say what would be searched, how many trials run at once on this cluster, and how long it takes."""
    from cluster.estimate import estimate_search
    from cluster.preflight import capacity, check_capacity
    from cluster.session import cluster_session

    run = plan.run
    with cluster_session(run.cluster):
        check_capacity(run.cluster)
        at_once = capacity(run.cluster) // run.cluster.min_workers
    estimate = estimate_search(
        plan.base,
        run.search,
        plan.readable(),
        num_trials=plan.num_trials,
        trials_at_once=at_once,
        extracts=plan.awaits_features,
    )
    show_table("Search space", ("setting", "values"), list(plan.space.description().items()))
    logger.info(
        "would try %d points, %d at once on this cluster, each for at most %d steps in %d epochs, into %s",
        plan.num_trials,
        at_once,
        estimate.steps_per_trial,
        run.search.max_epochs,
        run.folder,
    )
    logger.info(
        "about %s: a step took %.2f s here, and all trials take %d epochs together if %s",
        _duration(estimate.seconds),
        estimate.seconds_per_step,
        estimate.num_epochs,
        "none is stopped" if run.search.scheduler == "none" else f"one in {run.search.reduction_factor} goes on",
    )
    if estimate.extraction_seconds:
        logger.info("before them, about %s for features of all images", _duration(estimate.extraction_seconds))
    if as_json:
        write_json({"space": plan.space.description(), "num_trials": plan.num_trials, **plain(estimate)})


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


if __name__ == "__main__":
    run_job(main)
