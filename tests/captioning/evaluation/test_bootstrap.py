import numpy as np
import pytest

from captioning.evaluation.bootstrap import (
    compare,
    compare_scores,
    mean_score,
    percentile_interval,
    resampled_sums,
    score_intervals,
)
from captioning.evaluation.meteor.scorer import open_meteor
from captioning.evaluation.metrics import METRICS, ImageScores, score_captions, scores_of_sums, summands


def column(values):
    return np.array(values, dtype=np.float64)[:, None]


def normal(seed, num_images=200, mean=0.0, deviation=1.0):
    return column(np.random.default_rng(seed).normal(mean, deviation, num_images))


def corpus(words):
    """Return the scores of one image per candidate; all images have the same reference."""
    references = ("a dog runs on the grass", "a brown dog")
    return score_captions(dict(enumerate(words)), dict.fromkeys(range(len(words)), references)).images


def test_every_image_is_drawn_as_often_as_any_other():
    times = resampled_sums(np.eye(7), num_resamples=20_000, seed=3)
    assert times.mean(axis=0) == pytest.approx(np.ones(7), abs=0.03)


def test_each_resample_has_as_many_images_as_there_are():
    assert set(resampled_sums(np.ones((13, 1)), num_resamples=50, seed=0).ravel()) == {13.0}


def test_means_of_resamples_vary_as_the_mean_of_that_many_images_does():
    values = normal(0, num_images=400)
    means = mean_score(resampled_sums(values, num_resamples=5000, seed=1), 400)
    assert means.std() == pytest.approx(values.std() / 400**0.5, rel=0.05)


def test_the_same_seed_draws_the_same_and_another_seed_another():
    draws = [resampled_sums(np.eye(9), num_resamples=20, seed=seed).tobytes() for seed in (5, 5, 6)]
    assert (draws[0] == draws[1], draws[0] == draws[2]) == (True, False)


def test_the_draws_are_the_same_in_every_release():
    # numpy guarantees this for Philox's raw stream; the numbers below are from numpy 2.4.
    drawn = [[2.0, 1.0, 0.0, 1.0], [2.0, 0.0, 1.0, 1.0], [1.0, 2.0, 0.0, 1.0]]
    assert resampled_sums(np.eye(4), num_resamples=3, seed=1).tolist() == drawn


def test_a_longer_row_of_resamples_begins_like_a_shorter_one():
    rows = normal(2, num_images=3)
    long, short = (resampled_sums(rows, num_resamples=count, seed=0) for count in (300_000, 10))
    assert long[:10].tolist() == short.tolist()


def test_a_percentile_interval_leaves_out_as_much_below_as_above():
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


def test_every_score_lies_in_its_interval():
    images = corpus(["a dog runs on the grass", "a brown cat", "a dog", "the grass", "a brown dog runs"] * 8)
    totals = scores_of_sums(summands(images).sum(axis=0), len(images))
    intervals = score_intervals(images)
    assert all(low < totals[metric] < high or low == high == 0 for metric, (low, high) in intervals.items())


def test_an_interval_narrows_with_the_number_of_images():
    few, many = (score_intervals(corpus(["a dog runs", "a cat"] * count))["BLEU-1"] for count in (10, 250))
    assert many[1] - many[0] == pytest.approx((few[1] - few[0]) / 5, rel=0.3)


def test_equal_systems_are_never_better():
    scores = normal(0)
    found = compare(scores, scores.copy())
    assert (found.difference, found.low, found.high, found.share_above) == (0, 0, 0, 0)


def test_rounding_is_no_gain():
    scores = normal(0)
    assert compare(scores + 1e-12, scores).share_above == 0


@pytest.mark.parametrize(
    ("num_images", "gain", "is_sure"),
    [
        (2000, 0.1, True),
        (50, 0.1, False),  # a tiny gain on few images
        (2000, 0.0, False),
        (2000, -0.1, False),
    ],
)
def test_a_gain_is_sure_only_if_it_is_large_for_the_number_of_images(num_images, gain, is_sure):
    champion, noise = normal(1, num_images), normal(2, num_images)
    assert (compare(champion + noise - noise.mean() + gain, champion).share_above >= 0.95) == is_sure


@pytest.mark.parametrize(("above", "is_sure"), [(0.4, True), (0.5, False), (0.6, False)])
def test_a_gain_is_measured_against_the_one_asked_for(above, is_sure):
    champion = normal(1, 1000)
    gain = normal(2, 1000, mean=0.5, deviation=0.5)
    assert (compare(champion + gain - gain.mean() + 0.5, champion, above=above).share_above >= 0.95) == is_sure


def test_the_interval_of_a_difference_is_that_of_normal_theory():
    champion, gain = normal(1, 1000), normal(2, 1000, mean=0.2)
    found = compare(champion + gain, champion, num_resamples=10_000)
    half = 1.96 * float(gain.std()) / 1000**0.5
    assert (found.low, found.high) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.004)


def test_a_paired_interval_is_narrower_than_those_of_the_systems():
    champion = normal(1, 500)  # images differ much more than systems do
    challenger = champion + normal(2, 500, mean=0.05, deviation=0.1)
    found = compare(challenger, champion)
    apart = [percentile_interval(mean_score(resampled_sums(one, num_resamples=1000, seed=0), 500), 0.95)
             for one in (challenger, champion)]  # fmt: skip
    assert (found.low > 0, apart[0][0] < apart[1][1]) == (
        True,
        True,
    )  # better beyond doubt, although the intervals overlap


def test_one_challenger_in_twenty_that_is_no_better_seems_so_at_95_percent():
    passed = [compare(normal(2 * n), normal(2 * n + 1), num_resamples=200).share_above >= 0.95 for n in range(400)]
    assert np.mean(passed) == pytest.approx(0.05, abs=0.03)


def test_the_order_of_systems_turns_the_difference_round():
    one, other = normal(1), normal(2)
    there, back = compare(one, other), compare(other, one)
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))


def test_any_score_of_sums_is_compared():
    better = corpus(["a dog runs on the grass", "a brown dog"] * 30)
    worse = corpus(["a dog runs on grass", "a cat"] * 30)
    found = compare(summands(better), summands(worse), lambda sums, count: scores_of_sums(sums, count)["BLEU-4"])
    assert (found.difference > 0, found.share_above) == (True, 1.0)


def test_systems_on_other_images_are_not_paired():
    with pytest.raises(ValueError, match=r"one system has 3 images and the other 2, .*; score both on the same split"):
        compare(column([1, 2, 3]), column([1, 2]))


def test_no_images_are_not_resampled():
    with pytest.raises(ValueError, match="there are no images to resample; give at least 1"):
        resampled_sums(np.empty((0, 2)), num_resamples=5, seed=0)


def test_summands_are_in_the_order_of_image_ids():
    one = ImageScores(bleu_4=0.0, rouge_l=0.1, cider_d=1.0, bleu_counts=(0,) * 10)
    other = ImageScores(bleu_4=0.0, rouge_l=0.2, cider_d=2.0, bleu_counts=(0,) * 10)
    assert summands({7: other, 3: one})[:, 11].tolist() == [1.0, 2.0]


def test_two_systems_are_compared_by_every_metric():
    references = {n: [f"a dog number {n} runs"] for n in range(12)}
    meteor = open_meteor(["a dog runs"])
    good = score_captions({n: f"a dog number {n} runs" for n in references}, references, meteor=meteor).images
    bad = score_captions(dict.fromkeys(references, "a dog"), references, meteor=meteor).images
    found = compare_scores(good, bad)
    assert list(found) == list(score_intervals(good)) == list(METRICS)
    without = score_captions(dict.fromkeys(references, "a dog"), references).images
    assert compare_scores(good, without).keys() == found.keys() - {"METEOR"}  # by what both have
    assert all(one.difference > 0 and one.low <= one.difference <= one.high for one in found.values())
    assert {one.difference for one in compare_scores(bad, bad).values()} == {0.0}
