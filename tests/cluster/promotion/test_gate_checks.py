from dataclasses import replace

import numpy as np
import pytest

from captioning.evaluation.behaviour import Behaviour, Variant, has_repetition
from captioning.evaluation.bootstrap import score_intervals
from captioning.evaluation.metrics import ImageScores, scores_of_sums, summands
from cluster.evaluation.evaluate import Evaluation
from cluster.promotion.gate_checks import ModelResults, check_criteria, compare_scores
from cluster.promotion.gate_config import GateConfig
from tests.support.case_table import each_case

REPEATING = "a dog a dog"


def results(cider_d=(1.0, 2.0, 3.0, 4.0), *, captions=(), reencoded=0.9, cropped=0.9):
    """Return a model's results with these scores on each image; images without a given caption get a plain one."""
    counts = (8, 5, 3, 1, 10, 9, 8, 7, 10, 9)
    images = {
        number: ImageScores(bleu_4=0.1, rouge_l=0.5, cider_d=score, bleu_counts=counts)
        for number, score in enumerate(cider_d)
    }
    written = dict.fromkeys(images, "a dog runs") | dict(enumerate(captions))
    evaluation = Evaluation(
        split="val",
        shards_digest="d" * 64,
        step=1,
        scores={name: float(s) for name, s in scores_of_sums(summands(images).sum(axis=0), len(images)).items()},
        captions=written,
        images=images,
        intervals=score_intervals(images),
    )
    same = {
        variant: np.array([[number < round(200 * share)] for number in range(200)], np.float64)
        for variant, share in ((Variant.REENCODED, reencoded), (Variant.CROPPED, cropped))
    }
    behaviour = Behaviour(
        num_images=200,
        same_when_reencoded=reencoded,
        same_when_cropped=cropped,
        empty=sum(not caption for caption in written.values()) / len(written),
        repeated=sum(map(has_repetition, written.values())) / len(written),
        num_different=len(set(written.values())),
    )
    return ModelResults(evaluation, behaviour, same)


def test_results_without_meteor_are_compared_by_what_both_have():
    new, old = results(), results()
    statistics = {
        number: replace(image, meteor_statistics=(1.0,) * 6) for number, image in new.evaluation.images.items()
    }
    new = new._replace(evaluation=replace(new.evaluation, images=statistics))
    assert compare_scores(new, old, GateConfig(num_resamples=100)).difference == 0.0


def criteria(new, old=None, **settings):
    gate = GateConfig(num_resamples=400, **settings)
    found = check_criteria(new, old, compare_scores(new, old, gate) if old else None, gate)
    return {criterion.name: criterion for criterion in found}


def scores(num_images, gain=0.0, spread=0.0):
    """Return CIDEr-D of images, better by ``gain`` on average, by ``gain`` plus and minus ``spread`` in turn."""
    return [number % 5 + gain + (spread if number // 5 % 2 else -spread) for number in range(num_images)]


@pytest.mark.parametrize(
    ("num_images", "gain", "spread", "min_gain", "is_passed"),
    [
        (1000, 0.2, 1.0, 0.0, True),
        (1000, 0.0, 0.0, 0.0, False),  # the same scores
        (1000, 0.0, 1.0, 0.0, False),
        (1000, -0.2, 1.0, 0.0, False),
        (20, 0.2, 1.0, 0.0, False),  # too few images for a gain this small
        (1000, 0.2, 1.0, 0.1, True),
        (1000, 0.2, 1.0, 0.19, False),  # more, but not significantly
        (1000, 0.2, 0.0, 0.2, False),  # as much, and not more
    ],
)
def test_a_challenger_must_surely_score_higher_by_more_than_the_gain(num_images, gain, spread, min_gain, is_passed):
    found = criteria(results(scores(num_images, gain, spread)), results(scores(num_images)), min_gain=min_gain)
    assert found["CIDEr-D"].is_passed == is_passed


def test_a_higher_confidence_asks_for_more():
    new, old = results(scores(100, 0.2, 1.0)), results(scores(100))
    assert [criteria(new, old, confidence=share)["CIDEr-D"].is_passed for share in (0.95, 0.99)] == [True, False]


def test_any_score_may_decide():
    found = criteria(results(), results(), metric="ROUGE-L")
    assert "ROUGE-L 0.5000 is not significantly better than 0.5000" in found["ROUGE-L"].reason


@each_case(("floor", "is_passed"), [(2.4, True), (2.5, True), (2.6, False)])
@each_case("old", [None, results()])
def test_a_score_must_reach_its_floor_whoever_the_champion_is(old, floor, is_passed):
    assert criteria(results(), old, floors={"CIDEr-D": floor})["CIDEr-D floor"].is_passed == is_passed


@each_case(
    ("before", "after", "is_passed"),
    [
        (0.9, 0.9, True),
        (0.9, 0.85, True),  # exactly 5 points
        (0.9, 0.835, True),  # more, but not surely
        (0.9, 0.8, False),
        (0.5, 0.9, True),
        (0.03, 0.0, True),
    ],
)
@each_case(("variant", "name"), [("reencoded", "same caption re-encoded"), ("cropped", "same caption cropped")])
def test_captions_of_changed_images_must_not_surely_stay_the_same_over_5_points_less_often(
    variant, name, before, after, is_passed
):
    found = criteria(results(**{variant: after}), results(**{variant: before}))
    assert found[name].is_passed == is_passed


def test_the_points_allowed_are_a_setting():
    found = criteria(results(cropped=0.8), results(cropped=0.9), max_same_caption_drop_points=10.0)
    assert found["same caption cropped"].is_passed


@pytest.mark.parametrize("old", [None, results(captions=["", ""])])
def test_one_empty_caption_is_too_many_even_if_the_champion_has_more(old):
    found = criteria(results(captions=[""]), old)["empty captions"]
    assert (found.is_passed, found.reason) == (False, "1 of 4 captions are empty")


@pytest.mark.parametrize(
    ("after", "before", "is_passed"),
    [
        (0, 0, True),
        (1, 0, True),  # a single image may be chance
        (5, 0, False),
        (5, 5, True),
        (0, 5, True),
        (12, 5, False),
    ],
)
def test_a_challenger_must_not_surely_repeat_itself_more(after, before, is_passed):
    new, old = (results(scores(100), captions=[REPEATING] * count) for count in (after, before))
    assert criteria(new, old)["repeated words"].is_passed == is_passed


def test_repetition_elsewhere_is_no_more_repetition():
    new = results(scores(100), captions=["a dog"] * 5 + [REPEATING] * 6)
    assert criteria(new, results(scores(100), captions=[REPEATING] * 5))["repeated words"].is_passed


def test_without_a_champion_floors_and_words_are_all_that_is_asked():
    assert list(criteria(results(), floors={"CIDEr-D": 1.0, "BLEU-4": 0.1})) == [
        "BLEU-4 floor", "CIDEr-D floor", "empty captions",
    ]  # fmt: skip


def test_every_criterion_has_a_reason_of_one_line():
    found = criteria(results(), results(), floors={"CIDEr-D": 1.0})
    assert all(criterion.reason and "\n" not in criterion.reason for criterion in found.values())


def test_a_refused_gain_is_explained_in_figures():
    found = criteria(results(scores(100)), results(scores(100)), min_gain=0.1)["CIDEr-D"]
    assert found.reason == (
        "CIDEr-D 2.0000 is not significantly better than 2.0000 by more than 0.1: the difference is +0.0000 "
        "(+0.0000 to +0.0000), better by more than 0.1 in 0 % of the resamples, 95 % required"
    )


def test_a_refusal_for_other_captions_says_how_many_there_are():
    new, old = results(captions=["a dog", "two cats", "a red bird"], cropped=0.5), results(cropped=1.0)
    assert criteria(new, old)["same caption cropped"].reason == (
        "same caption cropped: 50 % of 200 images, -50.0 points from the champion's 100 %; over 5 points fewer "
        "(--max-same-caption-drop-points) in 100 % of the resamples, under 95 % required; the challenger writes 4 "
        "different captions, the champion 1"
    )


def test_the_same_results_give_the_same_criteria():
    new, old = results(scores(100, 0.1, 1.0)), results(scores(100))
    assert criteria(new, old) == criteria(new, old)


@each_case(
    ("settings", "message"),
    [
        ({"confidence": 1.0}, r"confidence 1\.0 is out of range; use 0\.5 up to below 1, such as 0\.95"),
        ({"confidence": float("nan")}, "confidence nan is out of range"),
        ({"min_gain": -0.1}, r"min_gain -0\.1 is out of range; use a finite number, 0 or more"),
        ({"max_same_caption_drop_points": 101}, "max_same_caption_drop_points 101 is out of range; use 0 to 100"),
        ({"floors": {"CIDER": 1.0}}, "floors names an unknown score, CIDER; use BLEU-1, .*, CIDEr-D"),
        ({"floors": {"CIDEr-D": float("inf")}}, "floor inf of CIDEr-D is not finite; use a finite number"),
        ({"num_resamples": 99}, "num_resamples 99 is too small; use 100 or more"),
        ({"seed": -1}, "seed -1 is too small; use 0 or more"),
        ({"num_behaviour_images": 0}, "num_behaviour_images 0 is too small; use 1 or more"),
        ({"beam_size": 0}, "beam_size 0 is out of range; use 1 to 1000"),
        ({"batch_size": 0}, "batch_size 0 is too small; use 1 or more"),
    ],
)
def test_a_gate_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GateConfig(**settings)
