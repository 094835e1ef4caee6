"""Evaluations among the artifacts of runs, and the tags of versions and LoggedModels."""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import one_line

if TYPE_CHECKING:  # the help of commands that tell of evaluations does not wait for MLflow
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

EVALUATION_TAG = "evaluation"
_FOLDER = "evaluations"


def evaluations_of(tags: Mapping[str, str], suffix: str = "") -> dict[str, dict[str, Any]]:
    """Return the evaluations among a run's or version's tags, by split; one that cannot be read is a warning.

    Args:
        tags: tags of the run or version.
        suffix: end of the tags' names, which is not part of the split's name.
    """
    prefix, found = f"{EVALUATION_TAG}.", {}
    for tag, value in tags.items():
        if tag.startswith(prefix) and tag.endswith(suffix):
            try:
                content = json.loads(value)
                content["scores"] = {name: float(score) for name, score in content["scores"].items()}
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                logger.warning("%s was altered and holds no scores (%s)", tag, one_line(error))
            else:
                found[tag.removeprefix(prefix).removesuffix(suffix)] = content
    return found


def run_artifact(split: str, step: int) -> str:
    """Return the place of the evaluation of a checkpoint among its run's artifacts."""
    return f"{_FOLDER}/{split}-step-{step}.json"


def evaluations_of_run(run: "Run", step: int, client: "MlflowClient") -> dict[str, dict[str, Any]]:
    """Return the evaluations of a checkpoint, by split: the files of its run, and the tags of earlier releases.

    Args:
        run: run that trained the checkpoint.
        step: step of the checkpoint.
        client: client of the tracker.

    Raises:
        Exception: the artifact store does not answer; which type depends on the store.
    """
    files = {f"{EVALUATION_TAG}.{split}": text for split, text in _files(run.info.run_id, step, client)}
    return evaluations_of_tags(run, step) | evaluations_of(files)


def evaluations_of_tags(run: "Run", step: int) -> dict[str, dict[str, Any]]:
    """Return the evaluations of a checkpoint that earlier releases logged as tags of its run, by split."""
    return evaluations_of(run.data.tags, f".step-{step}")


def _files(run_id: str, step: int, client: "MlflowClient") -> Iterator[tuple[str, str]]:
    """Yield the split and the content of each evaluation among a run's artifacts."""
    for found in client.list_artifacts(run_id, _FOLDER):
        split = found.path.removeprefix(f"{_FOLDER}/").removesuffix(f"-step-{step}.json")
        if found.path == run_artifact(split, step):
            with tempfile.TemporaryDirectory(prefix="captioning-") as folder:
                yield split, Path(client.download_artifacts(run_id, found.path, folder)).read_text(errors="replace")


def search_text(found: Mapping[str, Any]) -> str:
    """Return the search for captions of a recorded evaluation as text: the beam size, and what is not the default."""
    others = found.get("generation")
    told = [f", {name} {value}" for name, value in others.items()] if isinstance(others, dict) else []
    return f"beam {found.get('beam_size', 'unknown')}{''.join(told)}"
