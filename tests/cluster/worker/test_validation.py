"""Caption scores in training, in one process; with several ranks and in a whole run: ``integration/test_training``."""

from dataclasses import replace

import pytest
import torch

from captioning.evaluation.health import IMAGE_GAIN, scores_of
from captioning.training.checkpoint import load_model
from cluster.config import StorageConfig, TrainRun, ValidationConfig
from cluster.data.shard_set import ShardSet
from cluster.runs.validation_captions import load_captions
from cluster.worker.validation import Validator
from shards.reader import ShardReader

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def score(tiny_run, drawn_shards, tmp_path):
    """Return a function that scores a model on the validation split."""
    model, _, description = load_model(tiny_run / "checkpoints" / "step-00000005-attempt-1")
    run = TrainRun(
        shards=drawn_shards,
        model=description.model,
        validation=ValidationConfig(best_by="validation_cider_d"),
        storage=StorageConfig(home=tmp_path),
    )
    run = replace(run, training=replace(run.training, max_caption_words=4))
    device = torch.device("cpu")

    def score(best_by="validation_cider_d"):
        validation = replace(run.validation, best_by=best_by)
        validator = Validator(
            run=replace(run, validation=validation),
            shard_set=ShardSet(drawn_shards),
            ranks=(0, 1),
            device=device,
            heartbeat=lambda: None,
        )
        return validator.score(model, step=5), load_captions(run.folder)

    return score


def test_an_image_without_a_caption_of_words_is_left_out_and_named(score, monkeypatch, caplog):
    read = ShardReader.read
    monkeypatch.setattr(
        ShardReader,
        "read",
        lambda self, number: read(self, number)._replace(**({"captions": ("...",)} if number == 3 else {})),
    )
    scores, _ = score()
    assert scores_of(scores).keys() == {
        "validation_loss_nats", "validation_bleu_4", "validation_rouge_l", "validation_cider_d",
    }  # fmt: skip
    assert "1 of 30 validation images are left out of the caption scores, because no caption" in caplog.text


def test_the_captions_of_the_first_images_are_kept_with_the_intervals_of_the_scores(score):
    scores, [kept] = score()
    low, high = kept.intervals["validation_cider_d"]
    assert (kept.step, list(kept.captions), kept.intervals.keys()) == (
        5,
        [*range(16)],
        scores_of(scores).keys() - {"validation_loss_nats"},
    )
    assert low <= scores["validation_cider_d"] <= high


def test_without_caption_scores_the_first_images_alone_are_captioned(score):
    scores, [alone] = score("validation_loss_nats")
    _, [again] = score()  # the file of this step is there
    assert (scores_of(scores).keys(), alone.intervals, again) == ({"validation_loss_nats"}, {}, alone)
    assert list(alone.captions) == [*range(16)]


@pytest.mark.parametrize(("best_by", "num_captions"), [("validation_loss_nats", 16), ("validation_cider_d", 30)])
def test_health_is_measured_on_the_captions_that_there_are(score, best_by, num_captions):
    scores, _ = score(best_by)
    assert (scores["health_captions"], abs(scores[IMAGE_GAIN]) < 1) == (num_captions, True)
