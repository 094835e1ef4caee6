from dataclasses import replace

import pytest

from captioning.evaluation.metrics import ImageScores
from cluster.data.shard_set import ShardSet
from cluster.evaluation import gallery
from cluster.evaluation.evaluate import Evaluation


@pytest.fixture(scope="module")
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


def evaluation(shard_set, *scores):
    """Return an evaluation of the first images of the validation split, with these values of CIDEr-D."""
    samples = [shard_set.reader("val").read(number) for number in range(len(scores))]
    images = {
        sample.image_id: ImageScores(bleu_4=0.5, rouge_l=0.25, cider_d=score, bleu_counts=(1,) * 10)
        for sample, score in zip(samples, scores, strict=True)
    }
    captions = {sample.image_id: f"caption {number}" for number, sample in enumerate(samples)}
    return Evaluation(split="val", shards_digest="d", step=8, scores={"CIDEr-D": 1.0}, captions=captions, images=images)


def test_images_are_best_first_with_scores_and_references(shard_set):
    items = gallery.evaluation_items(evaluation(shard_set, 1.0, 3.0, 2.0), shard_set)
    assert [item.captions[0] for item in items] == ["caption 1", "caption 2", "caption 0"]
    assert items[0].scores == [("CIDEr-D", 3.0), ("BLEU-4", 0.5), ("ROUGE-L", 0.25)]
    assert items[0].references == shard_set.reader("val").read(1).captions


def test_beside_a_rival_the_largest_difference_comes_first(shard_set):
    own, rival = evaluation(shard_set, 1.0, 3.0, 2.0), evaluation(shard_set, 1.5, 0.0, 4.0)
    items = gallery.evaluation_items(own, shard_set, rival)
    assert [(item.captions[0], item.rival, item.gain) for item in items] == [
        ("caption 1", "caption 1", 3.0), ("caption 2", "caption 2", -2.0), ("caption 0", "caption 0", -0.5),
    ]  # fmt: skip


def test_of_a_large_split_both_ends_are_shown(shard_set, monkeypatch):
    monkeypatch.setattr(gallery, "choose", lambda ranked: [ranked[0], ranked[-1]])
    items = gallery.evaluation_items(evaluation(shard_set, 1.0, 3.0, 2.0), shard_set)
    assert [item.captions[0] for item in items] == ["caption 1", "caption 0"]


def test_an_evaluation_without_scores_of_its_images_shows_them_all(shard_set):
    items = gallery.evaluation_items(replace(evaluation(shard_set, 1.0, 2.0), images={}), shard_set)
    assert [item.scores for item in items] == [[], []]
