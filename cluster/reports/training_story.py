"""What a page shows of a training: curves of its journal, and captions of a few images at each validation."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from captioning.evaluation.health import IMAGE_GAIN
from captioning.pages.charts import Chart, Curve
from captioning.pages.model_page import Sample
from cluster.data.shard_set import ShardSet
from cluster.errors import one_line
from cluster.runs.journal import DamagedSegmentError, list_segments, read_segment
from cluster.runs.score_history import LAST_VALIDATION_LOSS, VALIDATION_LOSS
from cluster.runs.validation_captions import NUM_IMAGES, ValidationCaptions, load_captions
from shards.reader import DamagedSampleError

logger = logging.getLogger(__name__)

_SCORES = {"CIDEr-D": "validation_cider_d", "BLEU-4": "validation_bleu_4", "ROUGE-L": "validation_rouge_l"}
_SINGLE = (
    # title, unit, metric, factor
    ("Learning rate", "", "learning_rate", 1.0),
    ("Speed", "images per second", "images_per_second", 1.0),
    ("Waiting for data", "% of a step", "data_wait_share", 100.0),
    ("Gradient norm", "before clipping", "gradient_norm", 1.0),
    ("Loss with other images", "nats per word more", IMAGE_GAIN, 1.0),
    ("Different captions", "", "health_different_captions", 1.0),
)

_FLAWS = {
    "the same": "health_top_caption_share",
    "with repetitions": "health_repeated_share",
    "empty": "health_empty_share",
}

CURVES = (
    "epoch",
    "train_loss_nats",
    VALIDATION_LOSS,
    LAST_VALIDATION_LOSS,
    "train_reward",
    *_SCORES.values(),
    *_FLAWS.values(),
    *(metric for _, _, metric, _ in _SINGLE),
)
"""Names of the metrics that a page shows."""

Metrics = dict[int, dict[str, float]]
"""Metrics of each step, by step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStory:
    """The curves of a training, and the captions of the same images at each validation."""

    charts: Sequence[Chart] = ()
    steps: Sequence[int] = ()
    """Step of each validation that has captions."""
    samples: Sequence[Sample] = ()
    seconds: float = 0.0
    """Time between the first and the last step that are known, in seconds; pauses between attempts count."""
    num_epochs: float = 0.0
    """Number of epochs up to the last step."""


def read_story(run_folder: Path, shard_set: ShardSet | None, split: str) -> TrainingStory:
    """Read what a page shows of a run.

    Args:
        run_folder: folder of the run.
        shard_set: shard set with the validation images; None leaves the images out.
        split: name of the validation split.
    """
    captions = load_captions(run_folder)
    samples = _samples(captions, shard_set, split) if captions and shard_set else []
    story = story_of(*_read_journal(run_folder / "journal"), captions)
    return replace(story, steps=[one.step for one in captions] if samples else [], samples=samples)


def story_of(metrics: Metrics, times: Sequence[int], captions: Sequence[ValidationCaptions] = ()) -> TrainingStory:
    """Return the curves of a training.

    Args:
        metrics: metrics of each step; ``CURVES`` are used.
        times: times at which they were logged, in milliseconds.
        captions: validations with the intervals of their scores.
    """
    steps_per_epoch = _steps_per_epoch(metrics)
    return TrainingStory(
        charts=_charts(metrics, captions, steps_per_epoch),
        seconds=(max(times) - min(times)) / 1000 if times else 0.0,
        num_epochs=max(metrics) / steps_per_epoch if metrics and steps_per_epoch else 0.0,
    )


def _read_journal(folder: Path) -> tuple[Metrics, list[int]]:
    """Return the metrics of each step and the times of all rows; a damaged segment is left out, with a warning."""
    metrics: Metrics = {}
    times = []
    for segment in list_segments(folder):
        try:
            rows = read_segment(segment)
        except (DamagedSegmentError, OSError) as error:
            logger.warning("the page leaves out a part of the journal: %s", one_line(error, with_kind=False))
            continue
        for row in rows:
            metrics.setdefault(row.step, {}).update(row.metrics)
            times.append(row.timestamp_ms)
    return dict(sorted(metrics.items())), times


def _steps_per_epoch(metrics: Metrics) -> float:
    """Return the number of steps of an epoch; 0 if unknown."""
    for step, values in reversed(metrics.items()):
        if values.get("epoch", 0.0) > 0:
            return step / values["epoch"]
    return 0.0


def _charts(metrics: Metrics, captions: Sequence[ValidationCaptions], steps_per_epoch: float) -> list[Chart]:
    def curve(name: str, metric: str, factor: float = 1.0) -> list[Curve]:
        points = [
            (step / (steps_per_epoch or 1.0), factor * values[metric])
            for step, values in metrics.items()
            if metric in values
        ]
        if not any(math.isfinite(value) for _, value in points):
            return []
        intervals = [
            (one.step / (steps_per_epoch or 1.0), *one.intervals[metric]) for one in captions if metric in one.intervals
        ]
        return [Curve(name=name, points=points, intervals=intervals)]

    parts = [
        (
            "Loss",
            "nats per word",
            [
                *curve("training", "train_loss_nats"),
                *curve("validation", VALIDATION_LOSS),
                *curve("validation, unaveraged", LAST_VALIDATION_LOSS),
            ],
        ),
        ("Scores", "validation split", [one for name, key in _SCORES.items() for one in curve(name, key)]),
        (
            "Flawed captions",
            "% of the captions",
            [one for name, key in _FLAWS.items() for one in curve(name, key, 100.0)],
        ),
        ("Self-critical reward", "CIDEr-D of sampled captions", curve("", "train_reward")),
        *((title, unit, curve("", metric, factor)) for title, unit, metric, factor in _SINGLE),
    ]
    x_label = "epoch" if steps_per_epoch else "step"
    return [
        Chart(title=title, unit=unit, curves=curves, x_label=x_label, steps_per_x=steps_per_epoch)
        for title, unit, curves in parts
        if curves
    ]


def _samples(captions: Sequence[ValidationCaptions], shard_set: ShardSet, split: str) -> list[Sample]:
    """Return the images that have a caption at any validation; a damaged one, or a lost shard, is left out."""
    known = sorted({number for one in captions for number in one.captions if number < NUM_IMAGES})
    samples = []
    try:
        reader = shard_set.reader(split)
        for number in known:
            if number >= len(reader):
                continue
            image = reader.read(number)
            written = [one.captions.get(number, "") for one in captions]
            samples.append(Sample(name=image.key, jpeg=image.jpeg, captions=written, references=image.captions))
    except (DamagedSampleError, OSError, ValueError) as error:
        logger.warning("the page leaves out the validation images: %s", one_line(error, with_kind=False))
    return samples


def facts_of(identity: Mapping[str, object], lineage: Mapping[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the settings of a run, by section, and its lineage, as the groups of a page."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for key, value in identity.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section or "run", []).append((name.replace("_", " "), _text(value)))
    groups = [(name.capitalize(), pairs) for name, pairs in sections.items()]
    return [*groups, ("Lineage", [(key.replace("_", " "), value) for key, value in lineage.items() if value])]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
