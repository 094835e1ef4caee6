"""Losses: cross-entropy over the words of captions.

Shapes: B images, M targets, V vocabulary words.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from captioning.data.batches import CaptionBatch


def cross_entropy_sum(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum the negative log-likelihood over words, so that the losses of a batch's parts add up to the whole.

    Args:
        logits: (M, V) scores of the words, any float type.
        targets: (M,) int64 ids of the correct words.
        label_smoothing: share of a target's probability that is spread over all words (Szegedy et al., 2016,
            https://arxiv.org/abs/1512.00567, section 7).

    Returns:
        () loss in nats, float32 or wider.
    """
    return F.cross_entropy(_wide(logits), targets, reduction="sum", label_smoothing=label_smoothing)


def sum_per_image(losses: Tensor, batch: CaptionBatch) -> Tensor:
    """Sum the losses of words over the words of each image.

    Args:
        losses: (M,) losses of the targets, in nats.
        batch: batch with the M targets.

    Returns:
        (B,) float64 losses in nats.
    """
    sums = torch.zeros(len(batch.images), dtype=torch.float64, device=losses.device)
    return sums.index_add_(0, batch.image_of_target(), losses.double())


def reward_sum(batch: CaptionBatch) -> float:
    """Return the sum over images of the mean reward of their sampled captions; 0 for captions by people."""
    if batch.sampled is None:
        return 0.0
    num_captions = len(batch.sampled.reward) // batch.num_images  # as many for every image
    return float(batch.sampled.reward.sum()) / num_captions


def _wide(logits: Tensor) -> Tensor:
    """Return logits in float32 if they are narrower, such as bfloat16 from autocast."""
    return logits.float() if logits.element_size() < 4 else logits
