"""The training loop in plain PyTorch, for one process of any process group."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from captioning.config import NEWEST_ARITHMETIC, OptimizerConfig, TrainingConfig
from captioning.data.batches import BadSample, CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.training.averaging import WeightAverage
from captioning.training.collectives import Flags
from captioning.training.gradients import Gradient, GradientComputer
from captioning.training.optimizer import encoder_ramp_at, learning_rate_at
from captioning.training.transfer import BatchStream, LoadedPart

logger = logging.getLogger(__name__)


class StepResult(NamedTuple):
    """Result of one step, over all processes.

    Attributes:
        step: number of steps done, this one included.
        loss_nats: mean loss over the batch's words, in nats; nan if every image was left out, which leaves the weights
            unchanged.
        num_words: number of targets in the batch, <eos> included.
        num_images: number of images in the batch, without those left out.
        gradient_norm: global norm before clipping.
        learning_rate: learning rate of the decoder.
        flags: requests of any process.
        data_wait_seconds: time that a process waited for its share of the batch, in seconds, mean over processes.
        seconds: time from requesting the batch to the end of the optimizer's step, in seconds, on this process.
        bad: samples that were left out, by position.
        reward: mean reward of the captions that the model sampled; nan for captions by people. With sampled captions,
            ``loss_nats`` and ``num_words`` are theirs.
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
    reward: float = math.nan


@dataclass(slots=True)
class TrainingState:
    """All that training changes: the weights, the optimizer's moments, and the number of steps done.

    Attributes:
        arithmetic: version of the order of computation; a run that resumes needs the one it began with.
        resample: function that replaces the captions of a part of a batch by samples of the model, for self-critical
            training; None for training by captions of people.
        average: moving average of the weights; None for none.
    """

    model: CaptionModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    arithmetic: int = NEWEST_ARITHMETIC
    resample: Callable[[LoadedPart], LoadedPart] | None = None
    average: WeightAverage | None = None

    def apply_gradient(self) -> None:
        """Change the weights by the gradient of the next step, and average them."""
        if self.model.encoder.is_held:  # the optimizer then neither moves these weights nor begins their moments
            for weight in self.model.encoder.parameters():
                weight.grad = None
        self.optimizer.step()
        if self.average:
            self.average.update(self.step + 1)


def num_training_steps(config: TrainingConfig, num_samples: int) -> int:
    """Return the number of steps of the whole training, self-critical training included."""
    further = _num_steps(config.self_critical_epochs, config, num_samples)
    return num_cross_entropy_steps(config, num_samples) + further


def steps_text(config: TrainingConfig, num_samples: int) -> str:
    """Return the number of steps as text, such as ``120 steps`` or ``120 steps (40 of them self-critical)``."""
    num_steps, before = num_training_steps(config, num_samples), num_cross_entropy_steps(config, num_samples)
    return f"{num_steps} steps" + (f" ({num_steps - before} of them self-critical)" if num_steps > before else "")


def num_cross_entropy_steps(config: TrainingConfig, num_samples: int) -> int:
    """Return the number of steps in ``num_epochs`` passes over the samples, rounded up, at least one."""
    return max(1, _num_steps(config.num_epochs, config, num_samples))


def _num_steps(num_epochs: float, config: TrainingConfig, num_samples: int) -> int:
    # 1e-9 absorbs rounding: 0.1 passes over 30 samples in batches of 3 are 1.0000000000000002 steps.
    return math.ceil(num_epochs * num_samples / config.batch_size - 1e-9)


def train(
    state: TrainingState,
    replica: nn.Module,
    batches: Iterable[Sequence[CaptionBatch]],
    *,
    optimizer_config: OptimizerConfig,
    config: TrainingConfig,
    num_steps: int,
    device: torch.device,
    flags: Callable[[], Flags] = Flags,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[StepResult]:
    """Train, and yield the result of every step; every process of the group must take every step.

    Args:
        state: training state, advanced in place.
        replica: ``state.model`` as wrapped by ``replicate``.
        batches: this process's share of each step's batch from ``state.step`` on, in parts that fit into memory.
        optimizer_config: settings of learning rate and gradient norm.
        config: settings of loss, precision, seed and bad samples.
        num_steps: number of steps in the whole training; it ends earlier if a process requests to stop.
        device: device of the model.
        flags: function that returns the requests of this process, called once per step.
        clock: monotonic clock, in seconds.

    Raises:
        BadSampleError: bad samples, and ``config.on_bad_sample`` is stop; on all processes, before the weights change.
        FloatingPointError: the loss or the gradient is not finite, and no sample is to blame; likewise.
    """
    computer = _gradient_computer(state, replica, optimizer_config, config, device)
    state.model.encoder.is_replicated = replica is not state.model
    stream, is_stopped = BatchStream(batches, device, clock), False
    while state.step < num_steps and not is_stopped:
        started = clock()
        if (parts := stream.next()) is None:
            return
        waited, stream.wait_seconds = stream.wait_seconds, 0.0
        rate = _set_learning_rates(state, optimizer_config, num_steps=num_steps)
        try:
            parts = list(map(state.resample, parts)) if state.resample else parts
            gradient = computer.compute(parts, flags=flags(), data_wait_seconds=waited, meanwhile=stream.prefetch)
            if not gradient.is_sound:
                gradient = computer.exclude_bad_samples(gradient, parts, step=state.step + 1)
            if gradient.totals.num_words:
                state.apply_gradient()
        finally:  # also after an error, so that no gradient is left for a later step
            state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        yield _result(state, gradient, learning_rate=rate, seconds=clock() - started)
        is_stopped = gradient.totals.flags.stop


def _gradient_computer(
    state: TrainingState,
    replica: nn.Module,
    optimizer_config: OptimizerConfig,
    config: TrainingConfig,
    device: torch.device,
) -> GradientComputer:
    return GradientComputer(
        state.model,
        replica,
        config=config,
        max_gradient_norm=optimizer_config.max_gradient_norm,
        device=device,
        arithmetic=state.arithmetic,
    )


def _result(state: TrainingState, gradient: Gradient, *, learning_rate: float, seconds: float) -> StepResult:
    totals = gradient.totals
    return StepResult(
        step=state.step,
        loss_nats=totals.loss_nats,
        num_words=totals.num_words,
        num_images=totals.num_images,
        gradient_norm=gradient.norm,
        learning_rate=learning_rate,
        flags=totals.flags,
        data_wait_seconds=totals.data_wait_seconds,
        seconds=seconds,
        bad=gradient.bad,
        reward=totals.reward if state.resample else math.nan,
    )


def _set_learning_rates(state: TrainingState, config: OptimizerConfig, *, num_steps: int) -> float:
    """Set the learning rates of the next step, and hold an encoder that does not learn yet; return the decoder's."""
    rate, ramp = learning_rate_at(state.step, config, num_steps=num_steps), encoder_ramp_at(state.step, config)
    state.model.encoder.is_held = state.arithmetic > 2 and state.step < config.encoder_delay_steps
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["factor"] * (ramp if group["is_encoder"] else 1.0)
    return rate
