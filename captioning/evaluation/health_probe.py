"""Probe of a model's health on a few validation samples: whether it sees its images and knows people's words."""

import math
from collections.abc import Iterable

import torch

from captioning.config import TrainingConfig
from captioning.data.batches import CaptionBatch
from captioning.data.vocabulary import EOS, UNK
from captioning.evaluation.health import IMAGE_GAIN, UNKNOWN_SHARE
from captioning.model.caption_model import CaptionModel
from captioning.training.bad_samples import loss_per_image
from captioning.training.collectives import gather


def probe_health(
    model: CaptionModel,
    batches: Iterable[CaptionBatch],
    *,
    config: TrainingConfig,
    device: torch.device,
) -> dict[str, float]:
    """Measure by how much the loss rises with exchanged images, and which share of the words is unknown.

    A model that ignores its images loses nothing: one with constant features, or trained on captions of other images.
    All processes must call this together.

    Args:
        model: the bare model.
        batches: this process's share of a few validation samples; may be empty.
        config: settings of precision.
        device: device of the model.

    Returns:
        The metrics, by name; those that cannot be measured are missing.
    """
    was_training = model.training
    model.eval()
    mine = [_probe(model, batch, config=config, device=device) for batch in batches]
    model.train(was_training)
    found = gather(mine)
    num_words, num_unknown = sum(one[0] for one in found), sum(one[1] for one in found)
    nats, num_exchanged = math.fsum(one[2] for one in found), sum(one[3] for one in found)
    metrics = {UNKNOWN_SHARE: num_unknown / num_words} if num_words else {}
    return metrics | ({IMAGE_GAIN: nats / num_exchanged} if num_exchanged else {})


def _probe(
    model: CaptionModel, batch: CaptionBatch, *, config: TrainingConfig, device: torch.device
) -> tuple[int, int, float, int]:
    """Return a batch's numbers of words and unknown words, its gain in nats, and the number of words that is of."""
    if batch.num_images < 2:  # nothing to exchange, or a batch of a process without samples
        return 0, 0, 0.0, 0
    targets = batch.targets()
    exchanged = batch._replace(images=batch.images.roll(1, 0))
    own, other = (loss_per_image(model, [one], config=config, device=device).losses for one in (batch, exchanged))
    gains = [(two.nats - one.nats, one.num_words) for one, two in zip(own, other, strict=True)]
    known = [(nats, num_words) for nats, num_words in gains if math.isfinite(nats)]
    nats, num_exchanged = math.fsum(nats for nats, _ in known), sum(num_words for _, num_words in known)
    return int((targets != EOS).sum()), int((targets == UNK).sum()), nats, num_exchanged
