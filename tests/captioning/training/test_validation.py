"""Losses that are not finite, and the loss of a validation split."""

import math
from dataclasses import replace

import pytest
import torch

from captioning.training.losses import cross_entropy_sum
from captioning.training.validation import validation_loss
from tests.support import tiny_models
from tests.support.tiny_models import CPU, TRAINING, steps_of


def corrupted(value):
    """Return a state with a value as its first output bias that makes the loss not finite."""
    state = tiny_models.training_state()
    state.model.decoder.output.bias.data[0] = value
    return state


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])  # the last is finite, but too large to be summed
def test_a_loss_that_is_no_number_stops_training_and_names_samples(value):
    with pytest.raises(
        FloatingPointError, match=r"step 1: loss nan nats/word .* lower the learning rate, .* \(000, 001, 002"
    ):
        next(steps_of(corrupted(value), tiny_models.batches(range(1))))


def test_a_gradient_that_is_no_number_stops_training_before_the_weights_change():
    state = tiny_models.training_state()
    state.model.decoder.output.bias.register_hook(lambda gradient: gradient * math.inf)
    before = state.model.decoder.word_embedding.weight.clone()
    with pytest.raises(FloatingPointError, match=r"step 1: loss \d\.\d+ nats/word or gradient norm (nan|inf) is not"):
        next(steps_of(state, tiny_models.batches(range(1))))
    assert torch.equal(state.model.decoder.word_embedding.weight, before)


def test_the_validation_loss_is_the_mean_over_words_without_dropout_or_smoothing():
    model, batches = tiny_models.model(), [tiny_models.batch([0, 1]), tiny_models.batch([2])]
    config = replace(TRAINING, label_smoothing=0.3)
    total = sum(cross_entropy_sum(model(one), one.targets()).item() for one in batches)
    mean = total / sum(one.num_targets for one in batches)
    assert validation_loss(model, batches, config=config, device=CPU) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("mode", [True, False])
def test_validation_leaves_the_models_mode_as_it_was(mode):
    model = tiny_models.model().train(mode)
    validation_loss(model, [tiny_models.batch([0])], config=TRAINING, device=CPU)
    assert model.training is mode


@pytest.mark.parametrize(("value", "positions", "counts"), [(math.nan, [0, 1], "2 of 2"), (0.0, [], "0 of 0")])
def test_a_validation_loss_that_is_no_number_is_refused(value, positions, counts):
    batches = [tiny_models.batch([position]) for position in positions]
    message = rf"the validation loss is not finite \(images without a finite loss: {counts}\); lower the learning"
    with pytest.raises(FloatingPointError, match=message):
        validation_loss(corrupted(value).model, batches, config=TRAINING, device=CPU)
