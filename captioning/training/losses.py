"""Losses: cross-entropy over the words of captions.

Shapes: B images, M targets, V words known.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from captioning.config import TrainingConfig
from captioning.data.batches import CaptionBatch


def cross_entropy_sum(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum the negative log-likelihood over words; a sum, so that parts of a batch add up to the whole.

    Args:
        logits: (M, V), any float type.
        targets: (M,) int64.
        label_smoothing: share of a target's probability that is spread over all words (Szegedy et al., 2016,
            https://arxiv.org/abs/1512.00567, section 7).

    Returns:
        () in nats, float32 or wider.
    """
    return F.cross_entropy(_wide(logits), targets, reduction="sum", label_smoothing=label_smoothing)


def cross_entropy_of_images(logits: Tensor, batch: CaptionBatch, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum the same over the words of each image.

    Args:
        logits: (M, V), any float type.
        batch: batch whose targets they score.
        label_smoothing: as above.

    Returns:
        (B,) float64 in nats.
    """
    losses = F.cross_entropy(_wide(logits), batch.targets(), reduction="none", label_smoothing=label_smoothing)
    sums = torch.zeros(len(batch.images), dtype=torch.float64, device=losses.device)
    return sums.index_add_(0, batch.image_of_target(), losses.double())


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Return the context in which a model computes with the precision of a training run."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.element_size() < 4 else logits
