"""The gradient of one step over all processes, without the samples that cannot be trained on.

The loss is a sum over words, and gradients are scaled by the words of the whole batch, so that they do not depend on
how many processes made them. DDP averages gradients over processes; the average times (processes / words) is the mean
over words.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from captioning.config import TrainingConfig
from captioning.data.batches import BadSample, CaptionBatch
from captioning.model.caption_model import CaptionModel
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
from captioning.training.losses import autocast, cross_entropy_sum

_DROPOUT_SEED_OFFSET = 1


class Gradient(NamedTuple):
    """What is known of a gradient that the model's parameters hold.

    Attributes:
        agreed: by all processes.
        norm: before clipping.
        bad: samples of the whole batch that were left out, by position.
    """

    agreed: StepTotals
    norm: float
    bad: tuple[BadSample, ...] = ()

    @property
    def is_finite(self) -> bool:
        """Return whether the weights may follow it; a batch without any image has no loss, and a gradient of zeros."""
        return math.isfinite(self.norm) and (math.isfinite(self.agreed.loss_nats) or not self.agreed.num_words)


class GradientComputer:
    """Computes gradients, and finds the samples that spoil them.

    Args:
        model: the bare model.
        replica: of the model.
        config: of loss, precision, seed, and what to do about bad samples.
        max_gradient_norm: gradients are scaled down to it.
        device: of the model.
    """

    def __init__(
        self,
        model: CaptionModel,
        replica: nn.Module,
        *,
        config: TrainingConfig,
        max_gradient_norm: float,
        device: torch.device,
    ) -> None:
        self._model, self._replica, self._config = model, replica, config
        self._max_gradient_norm, self._device = max_gradient_norm, device
        self._dropout_seed = config.seed + _DROPOUT_SEED_OFFSET

    def compute(self, parts: Sequence[CaptionBatch], *, step: int, flags: Flags, data_wait_seconds: float) -> Gradient:
        """Leave the clipped gradient of a batch in the model's parameters; every process does the same.

        Args:
            parts: of this process's share of the batch.
            step: from 1, for messages.
            flags: what this process asks for.
            data_wait_seconds: that this process waited for its share.

        Raises:
            BadSampleError: there are bad samples, and the configuration says to stop.
            FloatingPointError: the gradient is not finite, and no sample is to blame.
        """
        gradient = self._attempt(parts, flags, data_wait_seconds)
        bad = gather([sample for part in parts for sample in part.bad]) if gradient.agreed.num_bad else []
        stops = self._config.on_bad_sample == "stop"
        if gradient.is_finite and not (bad and stops):
            return gradient._replace(bad=by_position(bad))
        losses = gather(self._survey(parts))
        spoiled = nonfinite_images(losses)
        if is_divergence(spoiled, len(losses)) or not all(gather([self._has_finite_weights()])):
            spoiled = []  # not they, but the model is at fault
        if stops and (bad or spoiled):
            found = by_position([*bad, *spoiled])
            raise BadSampleError(step, found, mean_losses(losses, found))
        if not spoiled:
            raise _not_finite(step, gradient, losses)
        self._model.zero_grad(set_to_none=True)
        positions = {sample.position for sample in spoiled}
        gradient = self._attempt([part.without(positions) for part in parts], flags, data_wait_seconds)
        if not gradient.is_finite:
            raise _not_finite(step, gradient, losses)
        return gradient._replace(bad=by_position([*bad, *spoiled]))

    def _attempt(self, parts: Sequence[CaptionBatch], flags: Flags, data_wait_seconds: float) -> Gradient:
        loss = self._accumulate([part.to(self._device) for part in parts])
        # Counted where they were made: on a device, every count would be waited for.
        num_words, num_images = sum(part.num_targets for part in parts), sum(part.num_images for part in parts)
        num_bad = sum(len(part.bad) for part in parts)
        agreed = reduce_step(StepShare(loss, num_words, num_images, num_bad, data_wait_seconds, flags), self._device)
        # Without any word in the whole batch, all gradients are zero as they are.
        return Gradient(agreed, self._scale_and_clip(world_size() / max(1, agreed.num_words)))

    def _accumulate(self, parts: Sequence[CaptionBatch]) -> float:
        """Add up the gradients of the parts' summed losses; processes exchange them once, after the last part."""
        total = torch.zeros((), device=self._device, dtype=torch.float64)
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            no_sync = getattr(self._replica, "no_sync", contextlib.nullcontext)
            with contextlib.nullcontext() if is_last else no_sync():
                with autocast(self._config, self._device):
                    logits = self._replica(part, self._dropout_seed)
                loss = cross_entropy_sum(logits, part.targets(), label_smoothing=self._config.label_smoothing)
                loss.backward()
            total += loss.detach()
        return float(total)

    def _scale_and_clip(self, scale: float) -> float:
        """Scale all gradients, then clip their global norm; return the norm before clipping."""
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        norm = scale * float(nn.utils.get_total_norm(gradients))
        factor = scale * self._max_gradient_norm / max(norm, self._max_gradient_norm)
        torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]  one kernel for all on a GPU
        return norm

    def _has_finite_weights(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self._model.parameters())

    def _survey(self, parts: Sequence[CaptionBatch]) -> list[ImageLoss]:
        return loss_per_image(
            self._model,
            parts,
            config=self._config,
            device=self._device,
            dropout_seed=self._dropout_seed,
            label_smoothing=self._config.label_smoothing,
        ).losses


def _not_finite(step: int, gradient: Gradient, losses: Sequence[ImageLoss]) -> FloatingPointError:
    """Return what to raise where no sample is to blame, the same on every process."""
    keys = ", ".join(loss.key for loss in sorted(losses, key=lambda loss: loss.position)[:4])
    return FloatingPointError(
        f"step {step}: loss {gradient.agreed.loss_nats:g} nats and gradient norm {gradient.norm:g} are not both "
        f"finite ({len(nonfinite_images(losses))} of {len(losses)} images have no finite loss); "
        f"lower the learning rate, or look at the samples, {keys}, ..."
    )
