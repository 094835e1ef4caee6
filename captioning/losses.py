"""What training makes small."""

import torch.nn.functional as F
from torch import Tensor


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
    wide = logits.float() if logits.element_size() < 4 else logits
    return F.cross_entropy(wide, targets, reduction="sum", label_smoothing=label_smoothing)
