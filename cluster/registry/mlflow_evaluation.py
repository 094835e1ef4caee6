"""Scores of a registered version by MLflow's own call, ``mlflow.models.evaluate``, equal to those of ``evaluate``."""

import base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from captioning.evaluation.meteor.scorer import open_meteor
from captioning.evaluation.metrics import METRICS, score_captions

if TYPE_CHECKING:
    import pandas
    from mlflow.models import EvaluationMetric

    from captioning.data.tokenizers import Tokenizer
    from captioning.evaluation.meteor.scorer import Meteor
    from cluster.data.shard_set import ShardSet

_CAPTIONS = "captions"


def evaluation_arguments(shard_set: "ShardSet", split: str) -> dict[str, Any]:
    """Return what ``mlflow.models.evaluate`` takes beside the model: images, references, metrics, and settings.

    Args:
        shard_set: shard set that has the split.
        split: name of the split; all of its images are held in memory.

    Raises:
        ValueError: there is no such split.
    """
    data, tokenizer = _table(shard_set, split), shard_set.vocabulary.tokenizer
    meteor = open_meteor((one for captions in data[_CAPTIONS] for one in captions), tokenizer)
    return {
        "data": data,
        "targets": _CAPTIONS,
        "predictions": "caption",
        "extra_metrics": caption_metrics(tokenizer, meteor),
        "evaluators": "default",
        # MLflow asks for all captions at once, where the version limits the rows of a request to its server.
        "model_config": {"intake": {"max_rows": len(data)}},
    }


def caption_metrics(tokenizer: "Tokenizer", meteor: "Meteor | None" = None) -> "list[EvaluationMetric]":
    """Return the scores of captions as metrics of MLflow; the targets are lists of references.

    Args:
        tokenizer: tokenizer of captions and references.
        meteor: scorer of METEOR; None leaves METEOR out.
    """
    from mlflow.models import make_metric  # takes seconds to import

    @lru_cache(maxsize=1)
    def scores(candidates: tuple[str, ...], references: tuple[tuple[str, ...], ...]) -> dict[str, float]:
        return score_captions(
            dict(enumerate(candidates)), dict(enumerate(references)), tokenizer=tokenizer, meteor=meteor
        ).as_dict()

    def metric(name: str) -> "EvaluationMetric":
        return make_metric(eval_fn=_function(name, scores), greater_is_better=True, name=name)

    return [metric(name) for name in METRICS if meteor or name != "METEOR"]


def _function(
    name: str, scores: Callable[[tuple[str, ...], tuple[tuple[str, ...], ...]], dict[str, float]]
) -> Callable[..., float]:
    def score(predictions: "Sequence[str | None]", targets: Sequence[Sequence[str]]) -> float:
        return scores(tuple(caption or "" for caption in predictions), tuple(map(tuple, targets)))[name]

    return score


def _table(shard_set: "ShardSet", split: str) -> "pandas.DataFrame":
    """Return the images and references of a split, in the order of their ids, on which sums of scores depend."""
    import pandas

    shard_set.manifest.of_split(split)
    reader = shard_set.reader(split)
    samples = sorted((reader.read(number) for number in range(len(reader))), key=lambda sample: sample.image_id)
    return pandas.DataFrame(
        {
            "image": [base64.b64encode(sample.jpeg).decode() for sample in samples],
            _CAPTIONS: [list(sample.captions) for sample in samples],
        }
    )
