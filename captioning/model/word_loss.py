"""Loss of words: projection to the vocabulary and cross-entropy in pieces, without scores of all words in memory.

Shapes: M targets, H hidden units, V vocabulary words.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_ROWS = 512  # targets at once: enough for fast products, and few enough to stay in a CPU's cache


def word_loss_sum(
    hidden: Tensor,
    output: nn.Linear,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum the negative log-likelihood over words.

    Gradients are computed together with the loss, piece by piece, so that the memory does not grow with M x V. In
    autocast, products have its precision; softmax and sums have float32 or wider.

    Args:
        hidden: (M, H) hidden states.
        output: projection to the vocabulary.
        targets: (M,) int64 ids of the correct words.
        label_smoothing: as in ``losses.cross_entropy_sum``.
        weights: (M,) float factor on the loss of each word; None for 1.

    Returns:
        () loss in nats, float32 or wider.
    """
    dtype = _product_dtype(hidden, output)
    return _WordLoss.apply(hidden, output.weight, output.bias, targets, label_smoothing, weights, dtype)


@torch.no_grad()
def word_losses(hidden: Tensor, output: nn.Linear, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return the negative log-likelihood of each word, (M,) in nats, float32 or wider; arguments as above."""
    dtype = _product_dtype(hidden, output)
    weight, bias = output.weight.to(dtype), output.bias.to(dtype)
    pieces = zip(hidden.to(dtype).split(_ROWS), targets.split(_ROWS), strict=True)
    scored = ((_log_likelihoods(F.linear(rows, weight, bias)), wanted) for rows, wanted in pieces)
    return torch.cat([_losses(likelihoods, wanted, label_smoothing) for likelihoods, wanted in scored])


def _product_dtype(hidden: Tensor, output: nn.Linear) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else output.weight.dtype


def _log_likelihoods(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float() if logits.element_size() < 4 else logits, dim=1)


def _losses(log_likelihoods: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the loss of each word: a weighted mean of the target's and of all words', as in ``F.cross_entropy``."""
    losses = log_likelihoods.gather(1, targets[:, None]).squeeze(1) * (label_smoothing - 1)
    return losses - log_likelihoods.mean(1) * label_smoothing if label_smoothing else losses


def _gradient_(log_likelihoods: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the gradient of the summed losses in the logits, in the memory of the log-likelihoods."""
    gradient = log_likelihoods.exp_()
    if label_smoothing:
        gradient -= label_smoothing / gradient.shape[1]
    of_target = gradient.new_full((len(gradient), 1), label_smoothing - 1)
    return gradient.scatter_add_(1, targets[:, None], of_target)


class _WordLoss(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        label_smoothing: float,
        weights: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        narrow, narrow_weight, narrow_bias = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
        total = torch.zeros((), dtype=bias.dtype, device=bias.device)
        of_hidden, of_weight, of_bias = torch.empty_like(narrow), torch.zeros_like(weight), torch.zeros_like(bias)
        for start in range(0, len(hidden), _ROWS):
            piece = slice(start, start + _ROWS)
            likelihoods = _log_likelihoods(F.linear(narrow[piece], narrow_weight, narrow_bias))
            losses = _losses(likelihoods, targets[piece], label_smoothing)
            gradient = _gradient_(likelihoods, targets[piece], label_smoothing)
            if weights is not None:
                factors = weights[piece].to(losses.dtype)
                losses, gradient = losses * factors, gradient.mul_(factors[:, None])
            total += losses.sum()
            of_bias += gradient.sum(0)
            gradient = gradient.to(dtype)
            of_hidden[piece] = gradient @ narrow_weight
            of_weight += gradient.t() @ narrow[piece]
        ctx.save_for_backward(of_hidden.to(hidden.dtype), of_weight, of_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        return *(gradient * of_loss for gradient in ctx.saved_tensors), None, None, None, None
