"""How sure a score is, and a difference of two: resampling of images with replacement.

- Paired bootstrap: Koehn 2004, https://aclanthology.org/W04-3250, section 4: both systems are scored on the same
  resampled images, and one is better with the confidence that is the share of resamples in which it is.
- Percentile intervals: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

The images are drawn from the raw stream of Philox, which numpy keeps the same across releases.

Shapes: N images, C columns that add up, R resamples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from captioning.evaluation.metrics import ImageScores, scores_of_sums, summands

CONFIDENCE = 0.95
_NUM_RESAMPLES = 1000
_DRAWS_AT_ONCE = 2**19  # of 8 bytes
_ROUNDING = 1e-9  # a difference below it is none

Score = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What resampling says of the difference between two systems on the same images."""

    difference: float
    """Score of the first less that of the second, over all images."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    share_above: float
    """Share of the resamples in which the difference is above the one asked for."""


def mean_score(sums: np.ndarray, num_images: int) -> np.ndarray:
    """Return means (...) of sums (..., 1) of one number an image."""
    return sums[..., 0] / num_images


def resampled_sums(rows: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """Draw as many images as there are, with replacement, again and again; add up their rows.

    Args:
        rows: (N, C) float64.
        num_resamples: R.
        seed: 0 or more.

    Returns:
        (R, C) float64.

    Raises:
        ValueError: there is no image.
    """
    num_images = len(rows)
    if not num_images:
        raise ValueError("0 images cannot be resampled; give at least one")
    bits = np.random.Philox(key=seed)
    sums = np.empty((num_resamples, rows.shape[1]))
    step = max(1, _DRAWS_AT_ONCE // num_images)
    for start in range(0, num_resamples, step):
        count = min(step, num_resamples - start)
        # The upper half of each draw, scaled: no image is likelier than another by more than N / 2**32.
        draws = (bits.random_raw(count * num_images) >> np.uint64(32)) * np.uint64(num_images) >> np.uint64(32)
        cells = draws.astype(np.intp).reshape(count, num_images) + np.arange(count)[:, None] * num_images
        times = np.bincount(cells.ravel(), minlength=count * num_images).reshape(count, num_images)
        sums[start : start + count] = times.astype(np.float64) @ rows
    return sums


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the two ends between which the middle share ``confidence`` of values (R,) lies."""
    low, high = np.quantile(values, ((1 - confidence) / 2, (1 + confidence) / 2)).tolist()
    return low, high


def score_intervals(
    images: Mapping[int, ImageScores],
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the interval of each corpus score, by metric.

    Args:
        images: scores of each.
        confidence: share of the resamples between both ends.
        num_resamples: R.
        seed: of the draws.

    Raises:
        ValueError: there is no image.
    """
    sums = resampled_sums(summands(images), num_resamples=num_resamples, seed=seed)
    scores = scores_of_sums(sums, len(images))
    return {metric: percentile_interval(values, confidence) for metric, values in scores.items()}


def compare(
    first: np.ndarray,
    second: np.ndarray,
    score: Score = mean_score,
    *,
    above: float = 0.0,
    confidence: float = CONFIDENCE,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two systems by the same resamples of the same images.

    With few images whose score differs, say below ten, the confidence is too high: three that are better among any
    number of equal ones reach 95 %.

    Args:
        first: (N, C) float64, of one system.
        second: (N, C) float64, of the other on the same images in the same order.
        score: of sums (..., C) over a number of images.
        above: difference that counts; it must be exceeded, so that equal systems are never better.
        confidence: of the interval.
        num_resamples: R.
        seed: of the draws.

    Raises:
        ValueError: the images are not the same number, or none.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"{len(first)} and {len(second)} images cannot be paired: a pair is one image; score both on the same split"
        )
    num_images, width = first.shape
    both = np.hstack((first, second))
    sums = resampled_sums(both, num_resamples=num_resamples, seed=seed)
    differences = score(sums[:, :width], num_images) - score(sums[:, width:], num_images)
    total = both.sum(axis=0)
    low, high = percentile_interval(differences, confidence)
    return Comparison(
        difference=float(score(total[:width], num_images) - score(total[width:], num_images)),
        low=low,
        high=high,
        share_above=float((differences > above + _ROUNDING).mean()),
    )
