"""What is asked of a challenger, one check at a time, each with a reason for its yes or no."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from captioning.evaluation.behaviour import Behaviour, has_repetition
from captioning.evaluation.bootstrap import Comparison, compare
from captioning.evaluation.metrics import scores_of_sums, summands
from cluster.evaluation.evaluate import Evaluation
from cluster.promotion.gate_config import GateConfig

_NOTHING = "-"
_ROUNDING = 1e-9
_BEHAVIOURS: dict[str, Callable[[Behaviour], float]] = {
    "same caption re-encoded": lambda behaviour: behaviour.same_when_reencoded,
    "same caption cropped": lambda behaviour: behaviour.same_when_cropped,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that is asked of a challenger."""

    name: str
    challenger: str
    """What it shows."""
    champion: str
    """What the champion shows."""
    wanted: str
    is_passed: bool
    reason: str
    """One line that says why."""


class ModelResults(NamedTuple):
    """What a model showed on a split."""

    evaluation: Evaluation
    behaviour: Behaviour


def compare_scores(new: ModelResults, old: ModelResults, gate: GateConfig) -> Comparison:
    """Compare two models by the metric that decides, on the same resamples of the same images.

    Raises:
        ValueError: they did not caption the same number of images.
    """
    return compare(
        summands(new.evaluation.images),
        summands(old.evaluation.images),
        lambda sums, num_images: scores_of_sums(sums, num_images)[gate.metric],
        above=gate.min_gain,
        confidence=gate.confidence,
        num_resamples=gate.num_resamples,
        seed=gate.seed,
    )


def check_all(
    new: ModelResults, old: ModelResults | None, gain: Comparison | None, gate: GateConfig
) -> tuple[Check, ...]:
    """Check a challenger against the champion, or, if there is none, by itself.

    Args:
        new: what the challenger showed.
        old: what the champion showed on the same images.
        gain: of the challenger over the champion.
        gate: what is asked for.
    """
    floors = [_check_floor(metric, floor, new, old) for metric, floor in sorted(gate.floors.items())]
    alone = (*floors, _check_empty(new, old))
    if not old or not gain:
        return alone
    steady = (_check_same(name, new, old, gate) for name in _BEHAVIOURS)
    return (_check_gain(new, old, gain, gate), *alone, *steady, _check_repeats(new, old, gate))


def _check_gain(new: ModelResults, old: ModelResults, gain: Comparison, gate: GateConfig) -> Check:
    is_passed = gain.share_above >= gate.confidence
    before, after = old.evaluation.scores[gate.metric], new.evaluation.scores[gate.metric]
    by = f" by more than {gate.min_gain:g}" if gate.min_gain else ""
    return Check(
        name=gate.metric,
        challenger=_score(new, gate.metric),
        champion=_score(old, gate.metric),
        wanted=f"better{by} in {_percent(gate.confidence)} of the resamples",
        is_passed=is_passed,
        reason=(
            f"{gate.metric} {after:.4f} {'is' if is_passed else 'is not'} surely better{by} than {before:.4f}: "
            f"the difference is {gain.difference:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}), and better{by} in "
            f"{_percent(gain.share_above)} of the resamples, where {_percent(gate.confidence)} are wanted"
        ),
    )


def _check_floor(metric: str, floor: float, new: ModelResults, old: ModelResults | None) -> Check:
    score = new.evaluation.scores[metric]
    is_passed = score >= floor
    return Check(
        name=f"{metric} floor",
        challenger=_score(new, metric),
        champion=_score(old, metric) if old else _NOTHING,
        wanted=f"at least {floor:g}",
        is_passed=is_passed,
        reason=f"{metric} {score:.4f} is {'not ' if is_passed else ''}below the floor {floor:g}",
    )


def _check_empty(new: ModelResults, old: ModelResults | None) -> Check:
    num_empty = _count(new, new.behaviour.empty)
    return Check(
        name="empty captions",
        challenger=_of_all(new, new.behaviour.empty),
        champion=_of_all(old, old.behaviour.empty) if old else _NOTHING,
        wanted="none",
        is_passed=num_empty == 0,
        reason=f"{_of_all(new, new.behaviour.empty)} captions have no word",
    )


def _check_same(name: str, new: ModelResults, old: ModelResults, gate: GateConfig) -> Check:
    """Refuse what is much less steady; a champion that says one thing of all images is as steady as can be."""
    after, before = (_BEHAVIOURS[name](showing.behaviour) for showing in (new, old))
    least = before - gate.max_same_caption_drop_points / 100
    return Check(
        name=name,
        challenger=_percent(after),
        champion=_percent(before),
        wanted=f"at least {_percent(max(0.0, least))}",
        is_passed=after >= least - _ROUNDING,
        reason=(
            f"{name}: {_percent(after)} of {new.behaviour.num_images} images, {100 * (after - before):+.1f} points "
            f"from the champion's {_percent(before)}, {gate.max_same_caption_drop_points:g} fewer are allowed; it "
            f"writes {new.behaviour.num_different} different captions, the champion {old.behaviour.num_different}"
        ),
    )


def _check_repeats(new: ModelResults, old: ModelResults, gate: GateConfig) -> Check:
    """Refuse what surely repeats itself more; by the same test as a gain, so that one image's chance is no reason."""
    found = compare(
        _repeating(new),
        _repeating(old),
        confidence=gate.confidence,
        num_resamples=gate.num_resamples,
        seed=gate.seed,
    )
    after, before = (_of_all(showing, showing.behaviour.repeated) for showing in (new, old))
    return Check(
        name="repeated words",
        challenger=after,
        champion=before,
        wanted=f"not more, in {_percent(gate.confidence)} of the resamples",
        is_passed=found.share_above < gate.confidence,
        reason=(
            f"{after} captions say words twice running, against {before} of the champion's: more in "
            f"{_percent(found.share_above)} of the resamples, where {_percent(gate.confidence)} are too many"
        ),
    )


def _repeating(showing: ModelResults) -> np.ndarray:
    """Return (N, 1) float64, by ascending image id: 1 for a caption that repeats itself."""
    return np.array(
        [[has_repetition(caption)] for _, caption in sorted(showing.evaluation.captions.items())], np.float64
    )


def _score(showing: ModelResults, metric: str) -> str:
    low, high = showing.evaluation.intervals[metric]
    return f"{showing.evaluation.scores[metric]:.4f} ({low:.4f} to {high:.4f})"


def _count(showing: ModelResults, share: float) -> int:
    return round(share * len(showing.evaluation.captions))


def _of_all(showing: ModelResults, share: float) -> str:
    return f"{_count(showing, share)} of {len(showing.evaluation.captions)}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
