"""Caption scores in training, in one process; with several ranks and in a whole run: ``integration/test_training``."""

from dataclasses import replace

import pytest
import torch

from captioning.training.checkpoint import load_model
from cluster.config import TrainRun, ValidationConfig
from cluster.data.shard_set import ShardSet
from cluster.worker.validation import Validator
from shards.reader import ShardReader

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def score(tiny_run, drawn_shards):
    """Return a function that scores a model on the validation split."""
    model, _, description = load_model(tiny_run / "checkpoints" / "step-00000005-attempt-1")
    run = TrainRun(shards=drawn_shards, model=description.model, validation=ValidationConfig(best_by="CIDEr-D"))
    run = replace(run, training=replace(run.training, max_caption_words=4))
    device = torch.device("cpu")
    validator = Validator(
        run=run, shard_set=ShardSet(drawn_shards), ranks=(0, 1), device=device, heartbeat=lambda: None
    )
    return lambda: validator.score(model)


def test_an_image_without_a_caption_of_words_is_left_out_and_named(score, monkeypatch, caplog):
    read = ShardReader.read
    monkeypatch.setattr(
        ShardReader,
        "read",
        lambda self, number: read(self, number)._replace(**({"captions": ("...",)} if number == 3 else {})),
    )
    assert score().keys() == {"validation_loss_nats", "validation_bleu_4", "validation_rouge_l", "validation_cider_d"}
    assert "1 of 30 validation images are left out of the caption scores, because no caption" in caplog.text
