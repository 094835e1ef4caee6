"""Criteria of the gate, each with the reason that it passes or fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from captioning.data.tokenizers import find_tokenizer
from captioning.evaluation.behaviour import Behaviour, Variant, has_repetition
from captioning.evaluation.bootstrap import Comparison, compare
from captioning.evaluation.metrics import common_summands, scores_of_sums
from cluster.evaluation.evaluate import Evaluation
from cluster.promotion.gate_config import GateConfig

_NOTHING = "-"
_SAME = {"same caption re-encoded": Variant.REENCODED, "same caption cropped": Variant.CROPPED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """Result of one criterion of the gate."""

    name: str
    challenger: str
    """The challenger's value, as text."""
    champion: str
    """The champion's value, as text; a dash without a champion."""
    wanted: str
    """Value that the challenger must reach, as text."""
    is_passed: bool
    reason: str
    """Explanation of the result, on one line."""


class ModelResults(NamedTuple):
    """A model's captions and scores on a split, and the behaviour of its captions.

    Attributes:
        evaluation: captions and scores.
        behaviour: summary of the captions.
        same: (N, 1) float64 for each variant, by ascending image id: 1 for an image that keeps its caption, else 0.
    """

    evaluation: Evaluation
    behaviour: Behaviour
    same: Mapping[Variant, np.ndarray]


def compare_scores(new: ModelResults, old: ModelResults, gate: GateConfig) -> Comparison:
    """Compare two models by the gate's metric, on the same bootstrap resamples of the same images.

    Args:
        new: results of the challenger.
        old: results of the champion.
        gate: settings of the criteria.

    Raises:
        ValueError: the models did not caption the same number of images.
    """
    return compare(
        *common_summands(new.evaluation.images, old.evaluation.images),
        lambda sums, num_images: scores_of_sums(sums, num_images)[gate.metric],
        above=gate.min_gain,
        confidence=gate.confidence,
        num_resamples=gate.num_resamples,
        seed=gate.seed,
    )


def check_criteria(
    new: ModelResults, old: ModelResults | None, gain: Comparison | None, gate: GateConfig
) -> tuple[Criterion, ...]:
    """Check every criterion; without a champion, only those that compare with nothing.

    Args:
        new: results of the challenger.
        old: results of the champion on the same images; None if there is no champion.
        gain: gain of the challenger over the champion; None if there is no champion.
        gate: settings of the criteria.
    """
    floors = [_check_floor(metric, floor, new, old) for metric, floor in sorted(gate.floors.items())]
    alone = (*floors, _check_empty(new, old))
    if not old or not gain:
        return alone
    steady = (_check_same(name, new, old, gate) for name in _SAME)
    return (_check_gain(new, old, gain, gate), *alone, *steady, _check_repeats(new, old, gate))


def _check_gain(new: ModelResults, old: ModelResults, gain: Comparison, gate: GateConfig) -> Criterion:
    is_passed = gain.share_above >= gate.confidence
    before, after = old.evaluation.scores[gate.metric], new.evaluation.scores[gate.metric]
    by = f" by more than {gate.min_gain:g}" if gate.min_gain else ""
    return Criterion(
        name=gate.metric,
        challenger=_score(new, gate.metric),
        champion=_score(old, gate.metric),
        wanted=f"better{by} in {_percent(gate.confidence)} of the resamples",
        is_passed=is_passed,
        reason=(
            f"{gate.metric} {after:.4f} {'is' if is_passed else 'is not'} significantly better than {before:.4f}{by}: "
            f"the difference is {gain.difference:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}), better{by} in "
            f"{_percent(gain.share_above)} of the resamples, {_percent(gate.confidence)} required"
        ),
    )


def _check_floor(metric: str, floor: float, new: ModelResults, old: ModelResults | None) -> Criterion:
    score = new.evaluation.scores[metric]
    is_passed = score >= floor
    return Criterion(
        name=f"{metric} floor",
        challenger=_score(new, metric),
        champion=_score(old, metric) if old else _NOTHING,
        wanted=f"at least {floor:g}",
        is_passed=is_passed,
        reason=f"{metric} {score:.4f} is {'not ' if is_passed else ''}below the floor {floor:g} (--floors)",
    )


def _check_empty(new: ModelResults, old: ModelResults | None) -> Criterion:
    num_empty = _count(new, new.behaviour.empty)
    return Criterion(
        name="empty captions",
        challenger=_of_all(new, new.behaviour.empty),
        champion=_of_all(old, old.behaviour.empty) if old else _NOTHING,
        wanted="none",
        is_passed=num_empty == 0,
        reason=f"{_of_all(new, new.behaviour.empty)} captions are empty",
    )


def _check_same(name: str, new: ModelResults, old: ModelResults, gate: GateConfig) -> Criterion:
    """Check that changed images keep their captions about as often as the champion's, by the same bootstrap test.

    The reason also counts different captions: a champion that writes one caption for all images keeps it every time.
    """
    after, before = (results.same[_SAME[name]] for results in (new, old))
    allowed = gate.max_same_caption_drop_points
    found = compare(
        before,
        after,
        above=allowed / 100,
        confidence=gate.confidence,
        num_resamples=gate.num_resamples,
        seed=gate.seed,
    )
    return Criterion(
        name=name,
        challenger=_percent(after.mean()),
        champion=_percent(before.mean()),
        wanted=f"over {allowed:g} points fewer in under {_percent(gate.confidence)} of the resamples",
        is_passed=found.share_above < gate.confidence,
        reason=(
            f"{name}: {_percent(after.mean())} of {len(after)} images, {-100 * found.difference:+.1f} points from the "
            f"champion's {_percent(before.mean())}; over {allowed:g} points fewer (--max-same-caption-drop-points) in "
            f"{_percent(found.share_above)} of the resamples, under {_percent(gate.confidence)} required; the "
            f"challenger writes {new.behaviour.num_different} different captions, the champion "
            f"{old.behaviour.num_different}"
        ),
    )


def _check_repeats(new: ModelResults, old: ModelResults, gate: GateConfig) -> Criterion:
    """Check that the challenger does not repeat words more often, by the same bootstrap test as a gain.

    Without the test, a repetition by chance on a single image would refuse it.
    """
    found = compare(
        _repeating(new),
        _repeating(old),
        confidence=gate.confidence,
        num_resamples=gate.num_resamples,
        seed=gate.seed,
    )
    after, before = (_of_all(results, results.behaviour.repeated) for results in (new, old))
    return Criterion(
        name="repeated words",
        challenger=after,
        champion=before,
        wanted=f"more in under {_percent(gate.confidence)} of the resamples",
        is_passed=found.share_above < gate.confidence,
        reason=(
            f"{after} captions repeat words, against {before} of the champion's: more in "
            f"{_percent(found.share_above)} of the resamples, under {_percent(gate.confidence)} required"
        ),
    )


def _repeating(results: ModelResults) -> np.ndarray:
    """Return (N, 1) float64, by ascending image id: 1 for a caption that repeats words, else 0."""
    tokenizer = find_tokenizer(results.evaluation.tokenizer)
    captions = [caption for _, caption in sorted(results.evaluation.captions.items())]
    return np.array([[has_repetition(caption, tokenizer)] for caption in captions], np.float64)


def _score(results: ModelResults, metric: str) -> str:
    low, high = results.evaluation.intervals[metric]
    return f"{results.evaluation.scores[metric]:.4f} ({low:.4f} to {high:.4f})"


def _count(results: ModelResults, share: float) -> int:
    return round(share * len(results.evaluation.captions))


def _of_all(results: ModelResults, share: float) -> str:
    return f"{_count(results, share)} of {len(results.evaluation.captions)}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
