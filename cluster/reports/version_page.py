"""The page of a registered version, ``model.html``: its scores and captions, beside those of the champion."""

import logging
import shlex
from pathlib import Path
from typing import NamedTuple, Protocol

from captioning.pages.gallery import Names
from captioning.pages.model_page import ModelPage, write_model_page
from captioning.pages.score_table import score_rows
from captioning.training.checkpoint_description import CheckpointDescription
from cluster.errors import one_line
from cluster.evaluation.evaluate import Evaluation
from cluster.evaluation.gallery import FIRST_SCORE, evaluation_items
from cluster.reports.run_page import Evaluated
from cluster.reports.training_story import TrainingStory, facts_of, read_story
from cluster.runs.record import load_record

logger = logging.getLogger(__name__)

PAGE_NAME = "model.html"


class RegisteredModel(Protocol):
    """A registered version, such as the registry's ``ResolvedModel``."""

    @property
    def name(self) -> str | None:
        """Return the name in the registry."""
        ...

    @property
    def version(self) -> str | None:
        """Return the number of the version."""
        ...

    @property
    def description(self) -> CheckpointDescription:
        """Return the content of ``checkpoint.json``."""
        ...


class Rival(NamedTuple):
    """The champion that a version is compared with.

    Attributes:
        name: name and version, as text.
        evaluation: its captions of the same images.
    """

    name: str
    evaluation: Evaluation


def version_folder(model: RegisteredModel) -> str:
    """Return the folder of a version's page, in the folder of its run and among the artifacts of its MLflow run."""
    return f"versions/{model.name}-{model.version}"


def write_version_page(
    run_folder: Path,
    model: RegisteredModel,
    evaluated: Evaluated,
    rival: Rival | None = None,
    *,
    story: TrainingStory | None = None,
) -> Path | None:
    """Write the page of a version.

    Args:
        run_folder: folder of the run that trained it, or the one to write to if the run is not on this machine.
        model: the version.
        evaluated: evaluation of the version.
        rival: champion to compare with; None without one.
        story: curves of a run that is not on this machine; None leaves them out.

    Returns:
        The page; None, with a warning, if it cannot be written.
    """
    path = run_folder / version_folder(model) / PAGE_NAME
    try:
        record = load_record(run_folder)
        story = story or TrainingStory()
        if record and record.mlflow_run_id == model.description.lineage.get("mlflow_run_id"):
            is_own = record.identity.get("data.shards") == evaluated.shard_set.manifest.digest
            split = str(record.identity.get("data.validation_split", "val"))
            story = read_story(run_folder, evaluated.shard_set if is_own else None, split)
        write_model_page(path, _page(model, evaluated, rival, story, record.identity if record else {}))
    except (OSError, ValueError) as error:
        logger.warning("the page of %s %s could not be written: %s", model.name, model.version, one_line(error))
        return None
    return path


def _page(
    model: RegisteredModel,
    evaluated: Evaluated,
    rival: Rival | None,
    story: TrainingStory,
    identity: dict[str, object],
) -> ModelPage:
    evaluation, description = evaluated.evaluation, model.description
    compared = f", beside {rival.name}, the champion before it" if rival else ""
    address = shlex.quote(f"models:/{model.name}/{model.version}")
    return ModelPage(
        title=f"{model.name} version {model.version}",
        kicker="Registered model",
        lead=f"Step {description.step:,} of run {description.lineage.get('run', 'unknown')}{compared}.",
        summary=_summary(evaluation, rival),
        scores=score_rows(evaluation.scores, evaluation.intervals, rival.evaluation.scores if rival else None),
        scores_note=f"On {evaluation.title}, with {evaluation.generation.describe()}.",
        charts=story.charts,
        steps=story.steps,
        samples=story.samples,
        items=evaluation_items(*evaluated, rival.evaluation if rival else None),
        num_pictures=len(evaluation.captions),
        names=Names(f"version {model.version}", rival.name) if rival else None,
        gallery_title="Pictures that differ most" if rival else "Scores of each picture",
        gallery_note=f"The difference is in {FIRST_SCORE}: positive where this version is better." if rival else "",
        pictures_first=True,
        facts=facts_of(identity, description.lineage),
        commands=[("Caption a picture", f"captioning caption PICTURE --model {address}")],
    )


def _summary(evaluation: Evaluation, rival: Rival | None) -> list[tuple[str, str]]:
    figures = [
        (name, f"{evaluation.scores[name]:.3f}") for name in (FIRST_SCORE, "BLEU-4") if name in evaluation.scores
    ]
    if rival and FIRST_SCORE in evaluation.scores and FIRST_SCORE in rival.evaluation.scores:
        gain = evaluation.scores[FIRST_SCORE] - rival.evaluation.scores[FIRST_SCORE]
        figures.append((f"{FIRST_SCORE} against {rival.name}", f"{gain:+z.3f}"))
        images = [image for image in evaluation.images if image in rival.evaluation.images]
        gains = [evaluation.images[image].cider_d - rival.evaluation.images[image].cider_d for image in images]
        better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        figures.append(("pictures", f"{better:,} better, {worse:,} worse"))
        return figures
    return [*figures, ("pictures", f"{len(evaluation.captions):,}")]
