import json
import math
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from captioning.data.tokenizers import UNICODE
from captioning.evaluation.meteor.scorer import open_meteor
from captioning.evaluation.metrics import (
    ImageId,
    ImageScores,
    check_references,
    score_captions,
    scores_of_sums,
    summands,
)
from tests.support.case_table import each_case

ELSEWHERE = {2: ["an old ship sails past"]}  # A second image with no word in common gives each word the weight log 2.


def score_one(candidate, references):
    return score_captions({1: candidate, 2: "a plane"}, {1: references, **ELSEWHERE}).images[1]


def alone(candidate, references):
    return score_captions({1: candidate}, {1: references})


def test_captions_of_a_script_without_spaces_are_scored_by_their_characters():
    references = {1: ["一只狗在看大海"], 2: ["两个孩子在玩"]}
    scores = score_captions({1: "一只狗在看海", 2: "孩子"}, references, tokenizer=UNICODE)
    assert scores.bleu_1 == pytest.approx(math.exp(1 - 13 / 8))  # all 8 characters are right, of 7 + 6


def test_published_scores_of_the_official_evaluation_are_reproduced(shared_data):
    oracle = shared_data / "oracle"
    results = json.loads((oracle / "captions_val2014_fakecap_results.json").read_text())
    tokenized = json.loads((oracle / "fakecap_val2014_tokenized_refs_and_candidates.json").read_text())
    published = json.loads((oracle / "published_scores.json").read_text())["fakecap_val2014"]["scores"]
    scores = score_captions(
        {result["image_id"]: result["caption"] for result in results},
        {image["image_id"]: image["refs"] for image in tokenized},
    )
    names = {"BLEU-1": "Bleu_1", "BLEU-2": "Bleu_2", "BLEU-3": "Bleu_3", "BLEU-4": "Bleu_4"}
    names |= {"ROUGE-L": "ROUGE_L", "CIDEr-D": "CIDEr"}
    assert {names[name]: round(score, 3) for name, score in scores.as_dict().items()} == {
        name: published[name] for name in names.values()
    }


@each_case(
    ("candidate", "references", "bleu_1"),
    [
        ("a cat sat on the mat", ["a cat sat on the mat"], 1.0),
        ("a cat", ["a cat sat on the mat"], math.exp(1 - 6 / 2)),  # All words match: only the brevity penalty.
        (
            "the the the the the the the",
            ["the cat is on the mat", "there is a cat on the mat"],
            2 / 7,
        ),  # Papineni 2002.
        (
            "one two three four",
            ["one two three", "one two three four five"],
            1.0,
        ),  # Equally close: the shorter one counts.
        ("x y", ["a b"], 0.0),
    ],
)
def test_bleu_1_clips_counts_and_punishes_brevity(candidate, references, bleu_1):
    assert alone(candidate, references).bleu_1 == pytest.approx(bleu_1, abs=1e-6)


def test_bleu_4_is_the_geometric_mean_of_four_precisions():
    scores = alone("a cat sat on the red mat", ["a cat sat on the blue mat"])
    assert scores.bleu_4 == pytest.approx((6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** (1 / 4), abs=1e-6)


def test_bleu_pools_counts_over_images_rather_than_averaging():
    scores = score_captions({1: "a cat", 2: "x y z u v w"}, {1: ["a cat"], 2: ["one dog runs on green grass"]})
    assert scores.bleu_1 == pytest.approx(2 / 8, abs=1e-6)


@each_case(
    ("candidate", "references", "precision", "recall"),
    [
        ("a cat on mat", ["a cat sat on the mat"], 4 / 4, 4 / 6),  # The longest common subsequence may have gaps.
        ("mat the on cat a", ["a cat on the mat"], 1 / 5, 1 / 5),  # It depends on the order.
        ("a cat sat", ["a cat sat on the mat", "a dog"], 3 / 3, 3 / 6),
        (
            "a b c d",
            ["a b c d e f g h", "a b"],
            4 / 4,
            2 / 2,
        ),  # The best precision and the best recall may be of different references.
    ],
)
def test_rouge_l_joins_the_best_precision_and_recall(candidate, references, precision, recall):
    beta = 1.2
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert alone(candidate, references).rouge_l == pytest.approx(expected)


def test_cider_d_of_a_caption_equal_to_its_reference_is_10():
    assert score_one("two dogs play with balls", ["two dogs play with balls"]).cider_d == pytest.approx(10)


@each_case(
    ("candidate", "references", "similarities", "length_difference"),
    [
        ("dog runs", ["dog runs fast"], (2 / math.sqrt(6), 1 / math.sqrt(2)), 1),
        ("dog dog", ["dog"], (1 / 2,), 1),  # Clipped: plain CIDEr would call these unigrams equal.
        ("dog", ["dog", "cat"], (1 / 2,), 0),  # The mean over references.
        ("dogs", ["dog"], (), 0),  # Nothing is stemmed.
    ],
)
def test_cider_d_is_ten_times_a_mean_cosine_with_a_length_penalty(
    candidate, references, similarities, length_difference
):
    penalty = math.exp(-(length_difference**2) / (2 * 6**2))
    expected = 10 * sum(similarities) / 4 * penalty
    assert score_one(candidate, references).cider_d == pytest.approx(expected)


def test_words_that_every_image_has_weigh_nothing_in_cider_d():
    scores = score_captions({1: "a photo", 2: "a photo"}, {1: ["a photo"], 2: ["a photo"]})
    assert scores.cider_d == 0


def test_rouge_l_and_cider_d_of_a_corpus_are_means_over_images():
    scores = score_captions({1: "a dog runs", 2: "red bird"}, {1: ["a dog sits"], 2: ["a red bird flies"]})
    one, two = scores.images.values()
    assert (scores.rouge_l, scores.cider_d) == ((one.rouge_l + two.rouge_l) / 2, (one.cider_d + two.cider_d) / 2)


@each_case(
    "candidates",
    [
        {1: "a dog runs on the grass", 2: "a red bird flies", 3: "two cats sit"},
        {1: "a dog", 2: "a bird", 3: "cats"},  # shorter than the references: the brevity penalty
        {1: "", 2: "", 3: ""},
        {1: "a dog", 2: "", 3: "two cats sit on a red mat by the door"},
    ],
)
@each_case("with_meteor", [False, True])
def test_sums_over_images_make_the_scores_of_the_corpus(candidates, with_meteor):
    references = {1: ["a dog runs on grass", "the dog runs"], 2: ["a red bird flies by"], 3: ["two cats sit on a mat"]}
    scores = score_captions(candidates, references, meteor=open_meteor(["a dog"]) if with_meteor else None)
    assert ("METEOR" in scores.as_dict(), len(scores.as_dict())) == (with_meteor, 6 + with_meteor)
    made = scores_of_sums(summands(scores.images).sum(axis=0), 3)
    assert {metric: float(score) for metric, score in made.items()} == pytest.approx(scores.as_dict(), abs=1e-12)


def test_case_and_punctuation_change_no_score():
    assert score_one("A dog, running.", ["a DOG running!"]) == score_one("a dog running", ["a dog running"])


@pytest.mark.parametrize("caption", ["", " . "])
def test_a_caption_without_words_scores_0(caption):
    scores = score_captions({1: caption, 2: "a plane"}, {1: ["a dog", "."], **ELSEWHERE}).images[1]
    assert (scores.bleu_4, scores.rouge_l, scores.cider_d) == (0, 0, 0)


def test_a_corpus_without_a_word_scores_0():
    assert set(score_captions({1: "", 2: ""}, {1: ["a dog"], **ELSEWHERE}).as_dict().values()) == {0.0}


def test_the_order_of_images_changes_no_bit():
    candidates = {image_id: f"a dog number {image_id} runs" for image_id in range(50)}
    references = {image_id: [f"dog {image_id} runs", "a dog runs fast"] for image_id in reversed(range(50))}
    assert score_captions(candidates, references) == score_captions(dict(reversed(candidates.items())), references)


def test_scoring_prints_nothing(capsys):
    alone("a dog", ["a dog"])
    assert capsys.readouterr() == ("", "")


@each_case(
    ("candidates", "references", "message"),
    [
        ({}, {}, "there are no images to score; give at least 1 caption"),
        ({1: "a", 7: "b"}, {1: ["a"]}, r"no references for 1 of 2 candidates \(first: image 7\); .*same split"),
        (
            {1: "a"},
            {1: ["a"], 5: ["b"], 4: ["c"]},
            r"no candidate for 2 of 3 images with references \(first: image 4\); caption every",
        ),
        (
            {1: "a", 2: "b"},
            {1: [], 2: [".", ""]},
            "none of 2 images has a reference with words; give images with human",
        ),
    ],
)
def test_captions_that_cannot_be_scored_are_refused(candidates, references, message):
    with pytest.raises(ValueError, match=message):
        score_captions(candidates, references)


def test_an_image_without_a_reference_of_words_is_left_out_of_the_scores():
    candidates, references = {1: "a dog runs", 2: "red bird"}, {1: ["a dog sits"], 2: ["a red bird flies"]}
    alone = score_captions(candidates, references)
    scores = score_captions({**candidates, 7: "a cat"}, {**references, 7: ["...", ""]})
    assert (scores.left_out, replace(scores, left_out=())) == ((7,), alone)


def test_references_without_any_word_are_refused_before_captions_are_written():
    check_references([["..."], ["a dog"]])
    with pytest.raises(ValueError, match="no image has a reference with words; give images with human captions"):
        check_references([["..."], [""]])


def test_scores_that_an_earlier_release_stored_have_no_meteor():
    old = {"bleu_4": 0.5, "rouge_l": 0.5, "cider_d": 1.0, "bleu_counts": [1] * 10}
    images = TypeAdapter(dict[ImageId, ImageScores]).validate_python({"12": old})
    assert (images[12].meteor, summands(images).shape) == (None, (1, 12))


def test_ids_of_images_may_be_texts_and_come_back_from_json():
    candidates = {"dogs/1.jpg": "A dog runs.", "12": "A cat sleeps."}
    references = {"dogs/1.jpg": ["A dog runs."], "12": ["A cat sleeps."]}
    images = score_captions(candidates, references, meteor=open_meteor(["a dog"])).images
    adapter = TypeAdapter(dict[ImageId, ImageScores])
    assert adapter.validate_json(adapter.dump_json(images)) == images
    numbers = TypeAdapter(dict[ImageId, str])
    assert numbers.dump_python({12: "A cat."}, mode="json") == {"12": "A cat."}
    assert numbers.validate_python({"12": "A cat."}) == {12: "A cat."}
