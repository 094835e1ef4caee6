"""The page of a run, ``run.html`` in its folder: curves, captions at each validation, scores, settings and lineage."""

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from captioning.pages.model_page import ModelPage, write_model_page
from captioning.pages.score_table import score_rows
from cluster.config import TrainRun
from cluster.data.shard_set import ShardSet
from cluster.errors import one_line
from cluster.evaluation.evaluate import Evaluation
from cluster.evaluation.gallery import evaluation_items
from cluster.job_progress import duration
from cluster.reports.training_story import TrainingStory, facts_of, read_story
from cluster.runs.record import RunRecord, load_record
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.tracking.client import connect
from cluster.tracking.pages import log_page

logger = logging.getLogger(__name__)

PAGE_NAME = "run.html"


class Evaluated(NamedTuple):
    """An evaluation, and the shard set that it is on."""

    evaluation: Evaluation
    shard_set: ShardSet


def write_run_page(
    folder: Path,
    *,
    shard_set: ShardSet | None,
    lineage: Mapping[str, str],
    evaluated: Evaluated | None = None,
    status: str = "",
) -> Path | None:
    """Write the page of a run into its folder.

    Args:
        folder: folder of the run; holds its ``run.json``.
        shard_set: shard set of the run; None, or another one, leaves out the images of the validations.
        lineage: digests, commit and run id.
        evaluated: evaluation of the run's best checkpoint; None if it is not evaluated.
        status: why the run ended, if it did not finish.

    Returns:
        The page; None, with a warning, if it cannot be written.
    """
    try:
        record = load_record(folder)
        if record is None:
            return None
        is_own = shard_set is not None and record.identity.get("data.shards") == shard_set.manifest.digest
        split = str(record.identity.get("data.validation_split", "val"))
        story = read_story(folder, shard_set if is_own else None, split)
        path = folder / PAGE_NAME
        write_model_page(path, _page(folder, record, story, lineage, evaluated, status))
    except (OSError, ValueError) as error:
        logger.warning("the page of run %s could not be written: %s", folder.name, one_line(error, with_kind=False))
        return None
    return path


@contextmanager
def page_at_the_end(
    run: TrainRun,
    mlflow_run_id: str,
    shard_set: ShardSet,
    lineage: Mapping[str, str],
    *,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Write the page of a run into its folder, and log it to MLflow, when the block ends; a failure is a warning.

    Args:
        run: run that trains in the block.
        mlflow_run_id: id of its MLflow run.
        shard_set: shard set of the run.
        lineage: digests, commit and run id.
        is_wanted: function that returns False if the run's search has stopped it; then there is no page.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if is_wanted():
            _publish(run, mlflow_run_id, shard_set, lineage, "stopped by a signal; the same command resumes it")
        raise
    except RuntimeError as error:
        _publish(run, mlflow_run_id, shard_set, lineage, f"{error}".partition("\n")[0].rstrip("."))
        raise
    _publish(run, mlflow_run_id, shard_set, lineage)


def _publish(
    run: TrainRun, mlflow_run_id: str, shard_set: ShardSet, lineage: Mapping[str, str], status: str = ""
) -> None:
    page = write_run_page(run.folder, shard_set=shard_set, lineage=lineage, status=status)
    if page is None:
        return
    logger.info("page:    %s", page)
    try:
        client = connect(run.tracking, run.storage)
    except Exception as error:  # which type depends on the tracker's database or server
        logger.warning("the tracker does not accept %s: %s", page, one_line(error, with_kind=False))
    else:
        log_page(client, mlflow_run_id, page)


def _page(
    folder: Path,
    record: RunRecord,
    story: TrainingStory,
    lineage: Mapping[str, str],
    evaluated: Evaluated | None,
    status: str,
) -> ModelPage:
    evaluation = evaluated.evaluation if evaluated else None
    state = "Finished" if record.is_finished else f"Not finished{f': {status}' if status else ''}"
    if record.stopped_early:
        state = f"Stopped early, at step {record.latest_step:,}: {record.stopped_early}"
    return ModelPage(
        title=record.name,
        kicker="Training run",
        lead=f"{state}. Encoder {record.identity.get('model.backbone', 'unknown')}.{_weights(record)}{_health(record)}",
        summary=_summary(record, story),
        scores=score_rows(evaluation.scores, evaluation.intervals) if evaluation else (),
        scores_note=_scores_note(evaluation) if evaluation else "",
        charts=story.charts,
        steps=story.steps,
        samples=story.samples,
        items=evaluation_items(*evaluated) if evaluated else None,
        num_pictures=len(evaluation.captions) if evaluation else 0,
        facts=facts_of(record.identity, {"run": record.name, **lineage, "folder": str(folder)}),
        evaluate_command=f"captioning evaluate {shlex.quote(str(folder))} --shards SHARDS",
        commands=_commands(folder),
    )


def _weights(record: RunRecord) -> str:
    """Return a sentence that says which weights the checkpoints have, if they are not those of the last step."""
    decay = record.identity.get("training.ema_decay")
    return f" Weights of checkpoints: moving average with decay {decay}." if decay else ""


def _health(record: RunRecord) -> str:
    """Return a sentence that says what goes wrong, if anything does."""
    told = "; it ".join(record.health.told().values())
    return f" Warning: the model {told}." if told else ""


def _scores_note(evaluation: Evaluation) -> str:
    search = evaluation.generation.describe()
    return f"Checkpoint at step {evaluation.step:,}, on {evaluation.title}, with {search}."


def _summary(record: RunRecord, story: TrainingStory) -> list[tuple[str, str]]:
    figures = []
    if record.best and VALIDATION_LOSS in record.best.metrics:
        figures.append(("validation loss", f"{record.best.metrics[VALIDATION_LOSS]:.3f} nats per word"))
    if record.best:
        figures.append(("best checkpoint", f"step {record.best.step:,}"))
    if record.self_critical_from is not None:
        figures.append(("self-critical", f"from step {record.self_critical_from:,}"))
    if record.latest:
        epochs = f" ({story.num_epochs:.3g} epochs)" if story.num_epochs else ""
        figures.append(("trained", f"{record.latest.step:,} steps{epochs}"))
    if story.seconds:
        figures.append(("time", duration(story.seconds)))
    if record.attempt > 1:
        figures.append(("restarts", f"{record.attempt - 1}"))
    return figures


def _commands(folder: Path) -> list[tuple[str, str]]:
    model = shlex.quote(str(folder))
    return [
        ("Caption a picture with its best checkpoint", f"captioning caption PICTURE --model {model}"),
        ("Register its best checkpoint as a version", f"captioning register {model} NAME"),
    ]
