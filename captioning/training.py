"""The training loop in plain PyTorch; it knows a process group, not who started it."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from captioning.agreement import Flags, Share, agree, gather, world_size
from captioning.bad_samples import BadSampleError, by_position, describe, is_divergence, spoiled_images, survey
from captioning.batches import BadSample, CaptionBatch, blank_batch
from captioning.config import OptimizerConfig, TrainingConfig
from captioning.model import CaptionModel
from captioning.step import GradientSource

logger = logging.getLogger(__name__)


class StepResult(NamedTuple):
    """What one step did, over all processes.

    Attributes:
        step: number of steps done, this one included.
        loss_nats: mean over the batch's words; nan if every image was left out, and the weights stay as they are.
        num_words: targets of the batch, <eos> included.
        num_images: in the batch, without those left out.
        gradient_norm: before clipping.
        learning_rate: of the decoder.
        flags: what any process asked for.
        data_wait_seconds: that a process waited for its share of the batch, mean over the processes.
        seconds: from asking for the batch to the end of the optimizer's step, on this process.
        bad: samples that were left out, by position.
    """

    step: int
    loss_nats: float
    num_words: int
    num_images: int
    gradient_norm: float
    learning_rate: float
    flags: Flags
    data_wait_seconds: float
    seconds: float
    bad: tuple[BadSample, ...] = ()


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
    if world_size() == 1:
        return model
    replica = DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )
    batch = blank_batch(model.encoder.image_size_px, device=device)
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
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[StepResult]:
    """Train, yielding after every step; every process of the group must take every step.

    Args:
        state: advanced in place.
        replica: of ``state.model``, by ``replicate``.
        batches: this process's share of each step's batch from ``state.step`` on, in parts that fit into memory.
        optimizer_config: of the learning rate and the gradient norm.
        config: of loss, precision, seed, and what to do about bad samples.
        num_steps: of the whole training, which ends when they are done or a process asks to stop.
        device: of the model.
        ask: what this process wants of all.
        clock: in seconds.

    Raises:
        BadSampleError: bad samples, and ``config`` says to stop; on all processes alike, before the weights change.
        FloatingPointError: the loss or the gradient is no finite number, and no sample is to blame; likewise.
    """
    source = GradientSource(
        state.model, replica, config=config, max_gradient_norm=optimizer_config.max_gradient_norm, device=device
    )
    stream, is_stopped = iter(batches), False
    while state.step < num_steps and not is_stopped:
        started = clock()
        if (parts := next(stream, None)) is None:
            return
        waited = clock() - started
        rate = _set_learning_rates(state, optimizer_config, num_steps=num_steps)
        try:
            agreed, norm, bad = source.compute(parts, step=state.step + 1, flags=ask(), data_wait_seconds=waited)
            if agreed.num_words:
                state.optimizer.step()
        finally:
            state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        loss, num_words, num_images, _, waited, flags = agreed
        seconds = clock() - started
        yield StepResult(state.step, loss, num_words, num_images, norm, rate, flags, waited, seconds, bad)
        is_stopped = flags.stop


def _set_learning_rates(state: TrainingState, config: OptimizerConfig, *, num_steps: int) -> float:
    """Give every part its learning rate for the next step; return that of the decoder."""
    rate, ramp = learning_rate_at(state.step, config, num_steps=num_steps), encoder_ramp_at(state.step, config)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["factor"] * (ramp if group["is_encoder"] else 1.0)
    return rate


def validation_loss(
    model: CaptionModel, batches: Iterable[CaptionBatch], *, config: TrainingConfig, device: torch.device
) -> float:
    """Return the mean negative log-likelihood of the batches' words in nats, over all processes.

    Args:
        model: the bare model.
        batches: this process's share of the validation samples; may be empty.
        config: of the precision, and what to do about bad samples.
        device: of the model.

    Raises:
        BadSampleError: there are bad samples, and ``config`` says to stop; every process raises it alike.
        FloatingPointError: the mean is not a finite number, or is over nothing; every process raises it alike.
    """
    was_training = model.training
    model.eval()
    found = survey(model, batches, config=config, device=device)
    model.train(was_training)
    spoiled = spoiled_images(found.losses)
    positions = {sample.position for sample in spoiled}
    good = [loss for loss in found.losses if loss.position not in positions]
    total, num_words = math.fsum(loss.nats for loss in good), sum(loss.num_words for loss in good)
    agreed = agree(Share(total, num_words, len(found.losses), len(found.bad) + len(spoiled)), device)
    if agreed.num_bad:
        _judge_validation(found.bad, spoiled, num_images=agreed.num_images, stops=config.on_bad_sample == "stop")
    if not math.isfinite(agreed.loss_nats):
        raise FloatingPointError(_no_validation_loss(agreed.num_images, 0))
    return agreed.loss_nats


def _judge_validation(bad: Sequence[BadSample], spoiled: Sequence[BadSample], *, num_images: int, stops: bool) -> None:
    """Refuse what was found on this and the other processes, or log what is left out."""
    all_spoiled = gather(spoiled)
    everything = by_position([*gather(bad), *all_spoiled])
    if is_divergence(all_spoiled, num_images):
        raise FloatingPointError(_no_validation_loss(num_images, len(all_spoiled)))
    if stops:
        raise BadSampleError(0, everything, {})
    if not dist.is_initialized() or dist.get_rank() == 0:
        logger.warning("validation leaves out %s", describe(everything))


def _no_validation_loss(num_images: int, num_spoiled: int) -> str:
    return (
        f"the validation loss is not a finite number ({num_spoiled} of {num_images} images have no finite loss); "
        "lower the learning rate, or look at the validation split"
    )
