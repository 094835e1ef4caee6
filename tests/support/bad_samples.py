"""Bad samples of every kind, and models that return NaN for white pictures."""

import math
from dataclasses import replace

import torch
from PIL import Image

from captioning.data.batches import BadSample
from captioning.training.bad_samples import BadSampleError
from captioning.training.validation import validation_loss
from tests.support import tiny_models
from tests.support.tiny_models import CPU, STAGE, TRAINING

SKIP = replace(TRAINING, on_bad_sample="skip")
WHITE = tiny_models.encoded(Image.new("RGB", (80, 72), "white"))  # its features are NaN in the models here
DAMAGED = {5, 6, 13, 14, *range(15, 20), 20}  # whole shares of the first and last process, and all of step 4
UNNUMBERED = {22, 24}  # in step 5; the second is the whole share of the last of three processes


def sample_at(position):
    sample = tiny_models.sample(position)
    if position in UNNUMBERED:
        return sample._replace(jpeg=WHITE)
    damaged = (
        sample._replace(jpeg=b"broken"),
        sample._replace(captions=()),
        BadSample(sample.key, sample.shard, position, "unread"),
    )
    return damaged[position % 3] if position in DAMAGED else sample


def white_at(*positions):
    return lambda position: tiny_models.sample(position)._replace(**({"jpeg": WHITE} if position in positions else {}))


def training_state(seed=0, **options):
    """Return a state with an encoder that returns NaN for white pictures."""
    state = tiny_models.training_state(seed, trainable_from=STAGE, **options)

    def spoil(encoder, inputs, features):
        is_white = inputs[0].flatten(1).amin(1) == 255
        return torch.where(is_white[:, None, None], math.nan, features)

    state.model.encoder.register_forward_hook(spoil)
    return state


def validated(rank=0, world_size=1, *, config=SKIP, positions=range(5, 15), sample_at=sample_at):
    """Validate a rank's share of the positions; return the loss or the error message."""
    start, stop = (len(positions) * part // world_size for part in (rank, rank + 1))
    batches = [tiny_models.batch([position], sample_at=sample_at) for position in positions[start:stop]]
    try:
        return validation_loss(training_state(is_double=True).model, batches, config=config, device=CPU)
    except (BadSampleError, FloatingPointError) as error:
        return str(error)
