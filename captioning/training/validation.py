"""Validation loss of a split, over all processes."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist

from captioning.config import TrainingConfig
from captioning.data.batches import BadSample, CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.training.bad_samples import (
    BadSampleError,
    by_position,
    describe,
    is_divergence,
    loss_per_image,
    nonfinite_images,
)
from captioning.training.collectives import StepShare, gather, reduce_step
from captioning.training.loop import logger


def validation_loss(
    model: CaptionModel, batches: Iterable[CaptionBatch], *, config: TrainingConfig, device: torch.device
) -> float:
    """Return the mean negative log-likelihood of the batches' words in nats, over all processes.

    Args:
        model: the bare model.
        batches: this process's share of the validation samples; may be empty.
        config: settings of precision and bad samples.
        device: device of the model.

    Raises:
        BadSampleError: there are bad samples, and ``config.on_bad_sample`` is stop. Raised on all processes.
        FloatingPointError: the mean is not finite, or there are no words. Raised on all processes.
    """
    was_training = model.training
    model.eval()
    found = loss_per_image(model, batches, config=config, device=device)
    model.train(was_training)
    nonfinite = nonfinite_images(found.losses)
    positions = {sample.position for sample in nonfinite}
    good = [loss for loss in found.losses if loss.position not in positions]
    total, num_words = math.fsum(loss.nats for loss in good), sum(loss.num_words for loss in good)
    totals = reduce_step(StepShare(total, num_words, len(found.losses), len(found.bad) + len(nonfinite)), device)
    if totals.num_bad:
        _refuse_or_log(found.bad, nonfinite, num_images=totals.num_images, stops=config.on_bad_sample == "stop")
    if not math.isfinite(totals.loss_nats):
        raise FloatingPointError(_no_validation_loss(totals.num_images, 0))
    return totals.loss_nats


def _refuse_or_log(bad: Sequence[BadSample], nonfinite: Sequence[BadSample], *, num_images: int, stops: bool) -> None:
    """Raise an error for the bad samples of all processes, or log them on rank 0 as left out."""
    all_nonfinite = gather(nonfinite)
    everything = by_position([*gather(bad), *all_nonfinite])
    if is_divergence(all_nonfinite, num_images):
        raise FloatingPointError(_no_validation_loss(num_images, len(all_nonfinite)))
    if stops:
        raise BadSampleError(0, everything, {})
    if not dist.is_initialized() or dist.get_rank() == 0:
        logger.warning("validation leaves out %s", describe(everything))


def _no_validation_loss(num_images: int, num_nonfinite: int) -> str:
    return (
        f"the validation loss is not finite (images without a finite loss: {num_nonfinite} of {num_images}); "
        "lower the learning rate, or check the validation split"
    )
