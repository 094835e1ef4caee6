"""Bootstrap: confidence intervals of scores, and of the difference between two systems, by resampling images.

- Paired bootstrap: Koehn 2004, https://aclanthology.org/W04-3250, section 4. Both systems are scored on the same
  resampled images; the share of resamples in which one is better is the confidence that it is better.
- Percentile intervals: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

The draws come from the raw stream of Philox, which is the same in every numpy release.

Shapes: N images, C statistics of an image (sums of which give scores), R resamples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from captioning.evaluation.metrics import ImageId, ImageScores, common_summands, scores_of_sums, summands

CONFIDENCE = 0.95
_NUM_RESAMPLES = 1000
_DRAWS_AT_ONCE = 2**19  # limits memory, at 8 bytes per draw
_ROUNDING = 1e-9  # smaller differences are rounding errors

Score = Callable[[np.ndarray, int], np.ndarray]
"""Function from sums of statistics, (..., C), and the number of images to scores, (...)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The difference between two systems on the same images, with its confidence interval."""

    difference: float
    """Score of the first system minus that of the second, over all images."""
    low: float
    """Lower end of the difference's interval."""
    high: float
    """Upper end of the difference's interval."""
    share_above: float
    """Share of resamples in which the difference is above the threshold ``above``."""


def mean_score(sums: np.ndarray, num_images: int) -> np.ndarray:
    """Return the means, (...), of one statistic from its sums over images, (..., 1)."""
    return sums[..., 0] / num_images


def resampled_sums(rows: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """Draw N images with replacement, R times, and sum the statistics of each resample.

    Args:
        rows: (N, C) float64 statistics of the images.
        num_resamples: R, the number of resamples.
        seed: seed of the draws, 0 or more.

    Returns:
        (R, C) float64 sums.

    Raises:
        ValueError: there are no images.
    """
    num_images = len(rows)
    if not num_images:
        raise ValueError("there are no images to resample; give at least 1")
    bits = np.random.Philox(key=seed)
    sums = np.empty((num_resamples, rows.shape[1]))
    step = max(1, _DRAWS_AT_ONCE // num_images)
    for start in range(0, num_resamples, step):
        count = min(step, num_resamples - start)
        # The upper 32 bits, scaled to N: no image is more likely than another by more than N / 2**32.
        draws = (bits.random_raw(count * num_images) >> np.uint64(32)) * np.uint64(num_images) >> np.uint64(32)
        cells = draws.astype(np.intp).reshape(count, num_images) + np.arange(count)[:, None] * num_images
        times = np.bincount(cells.ravel(), minlength=count * num_images).reshape(count, num_images)
        sums[start : start + count] = times.astype(np.float64) @ rows
    return sums


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the ends of the interval that holds the middle share ``confidence`` of the values, (R,)."""
    low, high = np.quantile(values, ((1 - confidence) / 2, (1 + confidence) / 2)).tolist()
    return low, high


def score_intervals(
    images: Mapping[ImageId, ImageScores],
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the confidence interval of each corpus score, by metric.

    Args:
        images: scores of each image, by image id.
        confidence: share of the resamples within the interval.
        num_resamples: R, the number of resamples.
        seed: seed of the draws, 0 or more.

    Raises:
        ValueError: there are no images.
    """
    sums = resampled_sums(summands(images), num_resamples=num_resamples, seed=seed)
    scores = scores_of_sums(sums, len(images))
    return {metric: percentile_interval(values, confidence) for metric, values in scores.items()}


def compare_scores(
    first: Mapping[ImageId, ImageScores], second: Mapping[ImageId, ImageScores], *, seed: int = 0
) -> dict[str, Comparison]:
    """Compare the corpus scores of two systems on the same images, by metric that both have.

    Args:
        first: scores of each image by one system.
        second: scores of each image by the other.
        seed: seed of the draws, 0 or more.

    Raises:
        ValueError: the systems have different numbers of images, or there are none.
    """

    def score_of(metric: str) -> Score:
        return lambda sums, num_images: scores_of_sums(sums, num_images)[metric]

    rows = common_summands(first, second)
    metrics = scores_of_sums(rows[0].sum(axis=0), len(rows[0]))
    return {metric: compare(*rows, score_of(metric), seed=seed) for metric in metrics}


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
    """Compare two systems on the same resamples of the same images.

    The confidence is too high if fewer than about ten images differ in score: three better images among any number of
    equal ones already give 95 %.

    Args:
        first: (N, C) float64 statistics of the images by one system.
        second: (N, C) float64 statistics of the same images, in the same order, by the other system.
        score: function that computes scores from sums of the statistics.
        above: threshold that the difference must exceed; at 0, equal systems never count as better.
        confidence: share of the resamples within the interval.
        num_resamples: R, the number of resamples.
        seed: seed of the draws, 0 or more.

    Raises:
        ValueError: the systems have different numbers of images, or there are no images.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"one system has {len(first)} images and the other {len(second)}, but a paired comparison needs the same "
            "images; score both on the same split"
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
