"""The training loop in plain PyTorch; it knows a process group, not who started it.

The loss is a sum over words, and gradients are scaled by the words of the whole batch, so that they do not depend on
how many processes made them. DDP averages gradients over processes; the average times (processes / words) is the mean
over words.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from captioning.batches import CaptionBatch
from captioning.config import OptimizerConfig, TrainingConfig
from captioning.losses import cross_entropy_sum
from captioning.model import CaptionModel
from captioning.vocabulary import BOS, EOS

# Losses travel in the same integer all-reduce as the word counts: integers add up the same in any order.
# A loss beyond the largest, over all processes, would overflow the sum; it counts as infinite.
_FIXED_POINT, _LARGEST_LOSS_NATS = 2**28, 2.0**34
_DROPOUT_SEED_OFFSET = 1


class Flags(NamedTuple):
    """What a process asks of all; one asking is enough."""

    checkpoint: bool = False
    stop: bool = False


class StepResult(NamedTuple):
    """What one step did, over all processes.

    Attributes:
        step: number of steps done, this one included.
        loss_nats: mean over the batch's words.
        num_words: targets of the batch, <eos> included.
        num_images: in the batch.
        gradient_norm: before clipping.
        learning_rate: of the decoder.
        flags: what any process asked for.
    """

    step: int
    loss_nats: float
    num_words: int
    num_images: int
    gradient_norm: float
    learning_rate: float
    flags: Flags


@dataclass(slots=True)
class TrainingState:
    """All that changes in training: the weights, the optimizer's moments, and the number of steps done."""

    model: CaptionModel
    optimizer: torch.optim.Optimizer
    step: int = 0


def build_optimizer(model: CaptionModel, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters; vectors do not decay, the encoder learns at its own rate."""
    groups = []
    for part, factor in ((model.encoder, config.encoder_learning_rate_factor), (model.decoder, 1.0)):
        parameters = [parameter for parameter in part.parameters() if parameter.requires_grad]
        for decay, chosen in (
            (config.weight_decay, [parameter for parameter in parameters if parameter.ndim > 1]),
            (0.0, [parameter for parameter in parameters if parameter.ndim <= 1]),
        ):
            if chosen:
                groups.append(
                    {"params": chosen, "weight_decay": decay, "factor": factor, "is_encoder": part is model.encoder}
                )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate_at(step: int, config: OptimizerConfig, *, num_steps: int) -> float:
    """Return the learning rate of a step, from 0: linear warm-up, then cosine decay.

    The decay is that of Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983, equation 5, without restarts.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return config.learning_rate * (config.final_factor + (1 - config.final_factor) * cosine)


def encoder_ramp_at(step: int, config: OptimizerConfig) -> float:
    """Return the share of its learning rate that the encoder has at a step: none during the delay, then rising."""
    if not config.encoder_delay_steps:
        return 1.0
    return min(1.0, max(0.0, step / config.encoder_delay_steps - 1))


def num_training_steps(config: TrainingConfig, num_samples: int) -> int:
    """Return the steps that ``num_epochs`` passes over the samples take, the last one whole."""
    return max(1, math.ceil(config.num_epochs * num_samples / config.batch_size - 1e-9))


def replicate(model: CaptionModel, device: torch.device) -> nn.Module:
    """Wrap the model for data-parallel training if there is a process group of several, and settle its buckets.

    DDP sums its first gradients in one layout and later ones in another. Two passes whose gradients are thrown away
    make the layout final, so that a resumed run adds in the same order as one that never stopped.
    """
    if _world_size() == 1:
        return model
    replica = DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )
    batch = _blank_batch(device, size_px=model.encoder.image_size_px)
    for _ in range(2):
        replica(batch).sum().backward()
    model.zero_grad(set_to_none=True)
    return replica


def train(
    state: TrainingState,
    replica: nn.Module,
    batches: Iterable[Sequence[CaptionBatch]],
    *,
    optimizer_config: OptimizerConfig,
    config: TrainingConfig,
    num_steps: int,
    device: torch.device,
    ask: Callable[[], Flags] = Flags,
) -> Iterator[StepResult]:
    """Train, yielding after every step; every process of the group must take every step.

    Args:
        state: advanced in place.
        replica: of ``state.model``, by ``replicate``.
        batches: this process's share of each step's batch from ``state.step`` on, in parts that fit into memory.
        optimizer_config: of the learning rate and the gradient norm.
        config: of loss, precision and seed.
        num_steps: of the whole training, which ends when they are done or a process asks to stop.
        device: of the model.
        ask: what this process wants of all.

    Raises:
        FloatingPointError: the loss or the gradient is not a finite number; every process raises it alike.
    """
    if state.step >= num_steps:
        return
    for parts in batches:
        rate = learning_rate_at(state.step, optimizer_config, num_steps=num_steps)
        ramp = encoder_ramp_at(state.step, optimizer_config)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["factor"] * (ramp if group["is_encoder"] else 1.0)
        loss = _accumulate(replica, [part.to(device) for part in parts], config, device)
        counts = (sum(part.num_targets for part in parts), sum(len(part.images) for part in parts))
        loss_nats, num_words, num_images, flags = _agree(loss, counts, ask(), device)
        norm = _scale_and_clip(state.model, _world_size() / num_words, optimizer_config.max_gradient_norm)
        if not math.isfinite(loss_nats + norm):
            raise FloatingPointError(
                f"step {state.step + 1}: loss {loss_nats:g} nats and gradient norm {norm:g} are not both finite; "
                f"lower the learning rate, or look at the samples, on this process {', '.join(parts[0].keys[:4])}, ..."
            )
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        yield StepResult(state.step, loss_nats, num_words, num_images, norm, rate, flags)
        if flags.stop or state.step >= num_steps:
            return


@torch.no_grad()
def validation_loss(
    model: CaptionModel, batches: Iterable[CaptionBatch], *, config: TrainingConfig, device: torch.device
) -> float:
    """Return the mean negative log-likelihood of the batches' words in nats, over all processes.

    Args:
        model: the bare model.
        batches: this process's share of the validation samples; may be empty.
        config: of the precision.
        device: of the model.

    Raises:
        FloatingPointError: the mean is not a finite number, or is over nothing; every process raises it alike.
    """
    was_training = model.training
    model.eval()
    total, num_words = torch.zeros((), device=device, dtype=torch.float64), 0
    for batch in batches:
        moved = batch.to(device)
        with _autocast(config, device):
            logits = model(moved)
        total += cross_entropy_sum(logits, moved.targets())
        num_words += batch.num_targets
    model.train(was_training)
    mean, num_words, *_ = _agree(float(total), (num_words, 0), Flags(), device)
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"the validation loss over {num_words} words is not a finite number; lower the learning rate, "
            "or look at the validation split"
        )
    return mean


def _accumulate(
    replica: nn.Module, parts: Sequence[CaptionBatch], config: TrainingConfig, device: torch.device
) -> float:
    """Add up the gradients of the parts' summed losses; processes exchange them once, after the last part."""
    total = torch.zeros((), device=device, dtype=torch.float64)
    for number, part in enumerate(parts, start=1):
        is_last = number == len(parts)
        waiting = contextlib.nullcontext() if is_last else getattr(replica, "no_sync", contextlib.nullcontext)()
        with waiting:
            with _autocast(config, device):
                logits = replica(part, config.seed + _DROPOUT_SEED_OFFSET)
            loss = cross_entropy_sum(logits, part.targets(), label_smoothing=config.label_smoothing)
            loss.backward()
        total += loss.detach()
    return float(total)


def _agree(loss: float, counts: tuple[int, int], flags: Flags, device: torch.device) -> tuple[float, int, int, Flags]:
    """Add up losses, words, images and flags over all processes: one small all-reduce of integers."""
    is_finite = abs(loss) * _world_size() < _LARGEST_LOSS_NATS  # false for nan, too
    fixed = round(loss * _FIXED_POINT) if is_finite else 0
    message = torch.tensor([fixed, *counts, not is_finite, *flags], dtype=torch.int64, device=device)
    if dist.is_initialized():
        dist.all_reduce(message)
    fixed, num_words, num_images, num_infinite, checkpoint, stop = message.tolist()
    mean = math.nan if num_infinite or not num_words else fixed / _FIXED_POINT / num_words
    return mean, num_words, num_images, Flags(bool(checkpoint), bool(stop))


def _scale_and_clip(model: nn.Module, scale: float, max_norm: float) -> float:
    """Scale all gradients, then clip their global norm; return the norm before clipping."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = scale * float(nn.utils.get_total_norm(gradients))
    factor = scale * max_norm / max(norm, max_norm)
    torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]  one kernel for all on a GPU
    return norm


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def _blank_batch(device: torch.device, *, size_px: int) -> CaptionBatch:
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    images = torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8, device=device)
    return CaptionBatch(images, torch.tensor([[BOS, EOS]], device=device), zero, zero, zero, ("blank",))
