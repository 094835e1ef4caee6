"""The gradient of one step over all processes, without bad samples.

The loss is a sum over words, and gradients are scaled by the number of words in the whole batch, so they do not depend
on the number of processes. DDP averages gradients over processes; the average times (processes / words) is the mean
over words.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.config import NEWEST_ARITHMETIC, TrainingConfig
from captioning.data.batches import BadSample, CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.model.precision import autocast
from captioning.training.bad_samples import (
    BadSampleError,
    ImageLoss,
    by_position,
    is_divergence,
    loss_per_image,
    mean_losses,
    nonfinite_images,
)
from captioning.training.collectives import Flags, StepShare, StepTotals, gather, reduce_step, world_size
from captioning.training.losses import cross_entropy_sum, reward_sum
from captioning.training.transfer import LoadedPart, load_part

_DROPOUT_SEED_OFFSET = 1
_NO_FLAGS = Flags()


class Gradient(NamedTuple):
    """Summary of the gradient in the model's parameters.

    Attributes:
        totals: sums and flags of the step over all processes.
        norm: global norm before clipping.
        bad: samples of the whole batch that were left out, by position.
    """

    totals: StepTotals
    norm: float
    bad: tuple[BadSample, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Return whether the gradient is finite and no sample of the batch is bad."""
        return self.is_finite and not self.totals.num_bad

    @property
    def is_finite(self) -> bool:
        """Return whether norm and loss are finite. A batch without words has no loss, and a gradient of zeros."""
        return math.isfinite(self.norm) and (math.isfinite(self.totals.loss_nats) or not self.totals.num_words)


class GradientComputer:
    """Computes gradients, and excludes the samples that make them not finite.

    Args:
        model: the bare model.
        replica: the model as wrapped by ``replicate``.
        config: settings of loss, precision, seed and bad samples.
        max_gradient_norm: global norm to which larger gradients are clipped.
        device: device of the model.
        arithmetic: version of the order of computation, which determines the last bits of the weights.
    """

    def __init__(
        self,
        model: CaptionModel,
        replica: nn.Module,
        *,
        config: TrainingConfig,
        max_gradient_norm: float,
        device: torch.device,
        arithmetic: int = NEWEST_ARITHMETIC,
    ) -> None:
        self._model, self._replica, self._config = model, replica, config
        self._max_gradient_norm, self._device, self._arithmetic = max_gradient_norm, device, arithmetic
        self._dropout_seed = config.seed + _DROPOUT_SEED_OFFSET

    def compute(
        self,
        parts: Sequence[LoadedPart],
        *,
        flags: Flags = _NO_FLAGS,
        data_wait_seconds: float = 0.0,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Gradient:
        """Compute the clipped gradient of a batch into the model's parameters; all processes must call this together.

        Gradients accumulate over the parts; processes exchange them once, after the last part.

        Args:
            parts: this process's share of the batch, in parts that fit into memory.
            flags: requests of this process.
            data_wait_seconds: time that this process waited for its share, in seconds.
            meanwhile: function called while a GPU computes.
        """
        total = torch.zeros((), device=self._device, dtype=torch.float64)
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            no_sync = getattr(self._replica, "no_sync", contextlib.nullcontext)
            with contextlib.nullcontext() if is_last else no_sync():
                loss = self._loss(part)
                loss.backward()
            total += loss.detach() if part.batch.sampled is None else -part.batch.sampled.log_probability.sum()
        # Counted in CPU memory: on a GPU, each count would make the host wait for the device.
        batches = [part.host for part in parts]
        num_words, num_images = sum(one.num_targets for one in batches), sum(one.num_images for one in batches)
        num_bad = sum(len(one.bad) for one in batches)
        norm = nn.utils.get_total_norm(self._gradients())
        meanwhile()
        reward = sum(reward_sum(one) for one in batches)
        share = StepShare(total, num_words, num_images, num_bad, data_wait_seconds, flags, norm, reward)
        totals = reduce_step(share, self._device)
        # If the whole batch has no words, all gradients are zero, and any scale will do.
        return Gradient(totals, self._scale_and_clip(totals.gradient_norm, world_size() / max(1, totals.num_words)))

    def _loss(self, part: LoadedPart) -> Tensor:
        """Return the loss summed over the words of a part, in nats."""
        smoothing = self._config.label_smoothing
        with autocast(self._config.precision, self._device):
            if self._arithmetic > 1:
                return self._replica(part.batch, self._dropout_seed, part.packing, smoothing)
            logits = self._replica(part.batch, self._dropout_seed)
        return cross_entropy_sum(logits, part.batch.targets(), label_smoothing=smoothing)

    def exclude_bad_samples(self, gradient: Gradient, parts: Sequence[LoadedPart], *, step: int) -> Gradient:
        """Compute a gradient again without the samples that made it not finite; all processes must call this together.

        Args:
            gradient: result of ``compute`` that is not finite, or whose batch has bad samples.
            parts: this process's share of the batch, as given to ``compute``.
            step: number of the step, from 1, for error messages.

        Raises:
            BadSampleError: there are bad samples, and ``on_bad_sample`` is stop.
            FloatingPointError: the gradient is not finite, and no sample is to blame.
        """
        bad = gather([sample for part in parts for sample in part.host.bad]) if gradient.totals.num_bad else []
        stops = self._config.on_bad_sample == "stop"
        if gradient.is_finite and not (bad and stops):
            return gradient._replace(bad=by_position(bad))
        batches = [part.host for part in parts]
        losses = gather(self._losses_of(batches))
        nonfinite = nonfinite_images(losses)
        if is_divergence(nonfinite, len(losses)) or not all(gather([self._has_finite_weights()])):
            nonfinite = []  # the model is at fault, not the samples
        if stops and (bad or nonfinite):
            found = by_position([*bad, *nonfinite])
            raise BadSampleError(step, found, mean_losses(losses, found))
        if not nonfinite:
            raise _not_finite(step, gradient, losses)
        self._model.zero_grad(set_to_none=True)
        positions = {sample.position for sample in nonfinite}
        again = self.compute([load_part(one.without(positions), self._device) for one in batches])
        if not again.is_finite:
            raise _not_finite(step, again, losses)
        known = gradient.totals  # the second pass had no waiting time and no requests
        totals = again.totals._replace(data_wait_seconds=known.data_wait_seconds, flags=known.flags)
        return Gradient(totals, again.norm, by_position([*bad, *nonfinite]))

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]

    def _scale_and_clip(self, total_norm: float, scale: float) -> float:
        """Scale all gradients, then clip their global norm; return the norm before clipping."""
        norm = scale * total_norm
        factor = scale * self._max_gradient_norm / max(norm, self._max_gradient_norm)
        torch._foreach_mul_(self._gradients(), factor)  # pyright: ignore[reportPrivateImportUsage]  one kernel for all on a GPU
        return norm

    def _has_finite_weights(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self._model.parameters())

    def _losses_of(self, parts: Sequence[CaptionBatch]) -> list[ImageLoss]:
        return loss_per_image(
            self._model,
            parts,
            config=self._config,
            device=self._device,
            dropout_seed=self._dropout_seed,
            label_smoothing=self._config.label_smoothing,
        ).losses


def _not_finite(step: int, gradient: Gradient, losses: Sequence[ImageLoss]) -> FloatingPointError:
    """Return the error to raise if no sample is to blame; the same on every process."""
    keys = ", ".join(loss.key for loss in sorted(losses, key=lambda loss: loss.position)[:4])
    return FloatingPointError(
        f"step {step}: loss {gradient.totals.loss_nats:g} nats/word or gradient norm {gradient.norm:g} is not finite "
        f"(images without a finite loss: {len(nonfinite_images(losses))} of {len(losses)}); "
        f"lower the learning rate, or check the samples of the batch ({keys}, ...)"
    )
