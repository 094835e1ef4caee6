"""Evaluations among the tags of runs, versions and LoggedModels."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from cluster.errors import one_line

logger = logging.getLogger(__name__)

EVALUATION_TAG = "evaluation"


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
                logger.warning("tag %s was altered and holds no scores (%s)", tag, one_line(error))
            else:
                found[tag.removeprefix(prefix).removesuffix(suffix)] = content
    return found


def run_tag(split: str, step: int) -> str:
    """Return the name of a run's tag with the evaluation of a checkpoint."""
    return f"{EVALUATION_TAG}.{split}.step-{step}"


def search_text(found: Mapping[str, Any]) -> str:
    """Return the search for captions of a recorded evaluation as text: the beam size, and what is not the default."""
    others = found.get("generation")
    told = [f", {name} {value}" for name, value in others.items()] if isinstance(others, dict) else []
    return f"beam {found.get('beam_size', 'unknown')}{''.join(told)}"
