"""Bad samples: images that cannot be read or have a loss that is not finite, and the error that names them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from captioning.config import TrainingConfig
from captioning.data.batches import BadSample, CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.model.precision import autocast
from captioning.model.word_loss import word_losses
from captioning.training.collectives import can_be_added
from captioning.training.losses import sum_per_image
from captioning.training.transfer import load_part


class BadSampleError(ValueError):
    """Training stopped at bad samples. All processes raise an equal error.

    Attributes:
        step: number of the failed step, from 1; 0 in validation.
        bad: the bad samples of all processes, by position.
        losses: mean loss over the words of each image in the step's whole batch, in nats, by key; nan if unknown.
    """

    def __init__(self, step: int, bad: Sequence[BadSample], losses: Mapping[str, float]) -> None:
        # Not a message: pickle passes these arguments to __init__ again when the error is sent to another process.
        super().__init__(step, bad, losses)
        self.step, self.bad, self.losses = step, tuple(bad), dict(losses)

    def __str__(self) -> str:
        """Return a message that names the first sample and what to do."""
        where = f"step {self.step}" if self.step else "validation"
        return (
            f"{where}: {describe(self.bad)}; leave bad samples out with --training.on-bad-sample skip, "
            "or run captioning convert again"
        )


class ImageLoss(NamedTuple):
    """Loss of the captions of one image.

    Attributes:
        key: key of the image.
        shard: name of the image's shard.
        position: position in the training stream, or within the split.
        nats: loss summed over the words of all captions, in nats.
        num_words: number of targets, <eos> included.
    """

    key: str
    shard: str
    position: int
    nats: float
    num_words: int


class ImageLosses(NamedTuple):
    """Losses of the images in a process's batches, and the samples that were left out."""

    losses: list[ImageLoss]
    bad: list[BadSample]


@torch.no_grad()
def loss_per_image(
    model: CaptionModel,
    batches: Iterable[CaptionBatch],
    *,
    config: TrainingConfig,
    device: torch.device,
    dropout_seed: int | None = None,
    label_smoothing: float = 0.0,
) -> ImageLosses:
    """Compute the loss of every image in this process's batches.

    Args:
        model: the bare model, on its device.
        batches: batches of images to score.
        config: settings of the training; only the precision is used.
        device: device of the model.
        dropout_seed: seed of the dropout; None drops nothing.
        label_smoothing: share of a target's probability that is spread over all words.
    """
    names: list[tuple[str, str, int]] = []
    sums, counts = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.int64)]
    bad: list[BadSample] = []
    for batch in batches:
        _, moved, packing = load_part(batch, device)
        with autocast(config.precision, device):
            hidden = model.hidden(moved, dropout_seed, packing)
            losses = word_losses(hidden, model.decoder.output, moved.targets(), label_smoothing=label_smoothing)
        sums.append(sum_per_image(losses, moved)[: batch.num_images])
        counts.append(torch.bincount(batch.image_of_target(), minlength=batch.num_images))
        names += zip(batch.keys, batch.shards, batch.positions(), strict=True)
        bad += batch.bad
    # Read back together at the end, so that the host waits for the device only once.
    nats, num_words = torch.cat([part.to(device) for part in sums]), torch.cat([part.to(device) for part in counts])
    losses = zip(names, nats.tolist(), num_words.tolist(), strict=True)
    return ImageLosses([ImageLoss(*name, loss, count) for name, loss, count in losses], bad)


def nonfinite_images(losses: Iterable[ImageLoss]) -> list[BadSample]:
    """Return the images with a loss that is not a number, or too large to be summed."""
    return [
        BadSample(loss.key, loss.shard, loss.position, f"its loss is {loss.nats:g} nats")
        for loss in losses
        if not can_be_added(loss.nats)
    ]


def is_divergence(nonfinite: Sequence[BadSample], num_images: int) -> bool:
    """Return whether more than half of the images have no finite loss: then the model is at fault, not the images."""
    return 2 * len(nonfinite) > num_images


def by_position(bad: Iterable[BadSample]) -> tuple[BadSample, ...]:
    """Sort samples by position, so that all processes name the same one first."""
    return tuple(sorted(bad, key=lambda sample: sample.position))


def mean_losses(losses: Iterable[ImageLoss], bad: Iterable[BadSample]) -> dict[str, float]:
    """Return the mean loss over the words of each image, in nats, by key; nan for bad samples."""
    known = {loss.key: loss.nats / loss.num_words for loss in sorted(losses, key=lambda loss: loss.position)}
    return known | {sample.key: float("nan") for sample in bad}


def describe(bad: Sequence[BadSample]) -> str:
    """Return the number of bad samples and the first of them, as a phrase."""
    key, shard, _, reason = bad[0]
    count = "1 bad sample," if len(bad) == 1 else f"{len(bad)} bad samples, first"
    return f"{count} {key} of {shard} ({reason})"
