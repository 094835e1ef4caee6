"""The effect of one step on the weights, and the learning rate schedule."""

from dataclasses import replace

import pytest
import torch

from captioning.config import OptimizerConfig, TrainingConfig
from captioning.training.loop import TrainingState, num_training_steps
from captioning.training.losses import cross_entropy_sum
from captioning.training.optimizer import build_optimizer, encoder_ramp_at, learning_rate_at
from tests.support import tiny_models
from tests.support.case_table import each_case
from tests.support.tiny_models import OPTIMIZER, STAGE, distance, steps_of

# Plain gradient descent at learning rate 1: a step subtracts the gradient from the weights.
DESCENT = OptimizerConfig(learning_rate=1.0, warmup_steps=0, max_gradient_norm=1e9)


def descent(**changes):
    """Return a state without dropout, with an optimizer that subtracts the gradient from the weights."""
    model = tiny_models.training_state(is_double=True, dropout=0.0, **changes).model
    parameters = [one for one in model.parameters() if one.requires_grad]
    return TrainingState(model, torch.optim.SGD([{"params": parameters, "factor": 1.0, "is_encoder": False}], lr=1.0))


def step_and_gradient(optimizer=DESCENT, num_parts=1):
    """Take a step; return its result, the change of the weights, and the gradient of the mean loss over words."""
    state = descent(trainable_from=STAGE)
    parameters = [one for one in state.model.parameters() if one.requires_grad]
    before = [one.detach().clone() for one in parameters]
    (whole,) = next(tiny_models.batches([0]))
    mean = cross_entropy_sum(state.model(whole), whole.targets()) / whole.num_targets
    gradient = torch.autograd.grad(mean, parameters)
    result = next(steps_of(state, tiny_models.batches([0], num_parts=num_parts), num_steps=1, optimizer=optimizer))
    moved = [old - new.detach() for old, new in zip(before, parameters, strict=True)]
    return result, moved, gradient, mean.item()


def norm(tensors):
    return float(torch.cat([tensor.flatten() for tensor in tensors]).norm())


@pytest.mark.parametrize("num_parts", [1, 3])
def test_a_step_follows_the_gradient_of_the_mean_over_words(num_parts):
    _, moved, gradient, _ = step_and_gradient(num_parts=num_parts)
    torch.testing.assert_close(moved, list(gradient), rtol=1e-9, atol=1e-12)


def test_a_step_tells_the_mean_loss_and_the_norm_of_the_gradient():
    result, _, gradient, mean = step_and_gradient()
    assert (result.loss_nats, result.gradient_norm) == pytest.approx((mean, norm(gradient)), rel=1e-9)


def test_a_large_gradient_is_clipped_to_the_norm():
    result, moved, gradient, _ = step_and_gradient(replace(DESCENT, max_gradient_norm=0.01))
    scale = 0.01 / norm(gradient)
    torch.testing.assert_close(moved, [one * scale for one in gradient], rtol=1e-9, atol=1e-12)
    assert result.gradient_norm == pytest.approx(norm(gradient))


def test_a_step_counts_words_and_images():
    (whole,) = next(tiny_models.batches([0]))
    result, *_ = step_and_gradient(num_parts=2)
    assert (result.step, result.num_words, result.num_images) == (1, whole.num_targets, 5)


@each_case(
    ("step", "rate"),
    [(0, 0.5), (1, 1.0), (3, 2.0), (4, 2.0), (9, 1.1), (14, 0.2), (99, 0.2)],  # halfway: the mean of 2.0 and 0.2
)
def test_the_learning_rate_rises_and_falls(step, rate):
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=4, final_factor=0.1)
    assert learning_rate_at(step, config, num_steps=14) == pytest.approx(rate)


@pytest.mark.parametrize(("warmup_steps", "rates"), [(0, [2.0, 1.0]), (8, [0.25, 0.5])])
def test_the_learning_rate_without_warm_up_and_with_nothing_else(warmup_steps, rates):
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=warmup_steps, final_factor=0.0)
    assert [learning_rate_at(step, config, num_steps=2) for step in range(2)] == pytest.approx(rates)


@each_case(
    ("delay_steps", "ramp"), [(0, [1.0, 1.0, 1.0, 1.0, 1.0]), (2, [0.0, 0.0, 0.0, 0.5, 1.0]), (1, [0, 0, 1, 1, 1])]
)
def test_the_encoder_begins_to_learn_after_its_delay(delay_steps, ramp):
    config = OptimizerConfig(encoder_delay_steps=delay_steps)
    assert [encoder_ramp_at(step, config) for step in range(5)] == ramp


DELAYED = replace(OPTIMIZER, encoder_delay_steps=3)


@pytest.mark.parametrize("arithmetic", [1, 2, 3])
def test_a_delayed_encoder_does_not_move(arithmetic):
    state = tiny_models.training_state(trainable_from=STAGE)
    state.arithmetic = arithmetic
    before = {name: tensor.clone() for name, tensor in state.model.encoder.state_dict().items()}
    list(steps_of(state, tiny_models.batches(range(3)), num_steps=3, optimizer=DELAYED))
    assert distance(state.model.encoder.state_dict(), before) == 0.0


def test_an_encoder_that_does_not_learn_yet_has_no_gradient_and_no_moments():
    state = tiny_models.training_state(trainable_from=STAGE)
    steps, learned = set(), []
    for weight in state.model.encoder.parameters():
        if weight.requires_grad:
            weight.register_hook(lambda gradient: steps.add(state.step) if gradient.any() else None)
    for _ in steps_of(state, tiny_models.batches(range(5)), num_steps=5, optimizer=DELAYED):
        learned.append(sum(weight in state.optimizer.state for weight in state.model.encoder.parameters()))
    num_trained = sum(weight.requires_grad for weight in state.model.encoder.parameters())
    assert (learned, steps) == ([0, 0, 0, num_trained, num_trained], {3, 4})


def test_the_decoder_learns_meanwhile_as_beside_a_frozen_encoder():
    frozen, held = (tiny_models.training_state(trainable_from=stage) for stage in (None, STAGE))
    for state in (frozen, held):
        list(steps_of(state, tiny_models.batches(range(3)), num_steps=3, optimizer=DELAYED))
    assert distance(held.model.decoder.state_dict(), frozen.model.decoder.state_dict()) == 0.0


def test_every_part_learns_at_its_own_rate():
    state = tiny_models.training_state(trainable_from=STAGE)
    optimizer = replace(OPTIMIZER, encoder_learning_rate_factor=0.1)
    state.optimizer = build_optimizer(state.model, optimizer)
    result = next(steps_of(state, tiny_models.batches([0]), optimizer=optimizer))
    rate_of = {id(one): group["lr"] for group in state.optimizer.param_groups for one in group["params"]}
    parts = (state.model.encoder, state.model.decoder)
    rates = [{rate_of[id(one)] for one in part.parameters() if one.requires_grad} for part in parts]
    assert rates == [{result.learning_rate * 0.1}, {result.learning_rate}]


def test_matrices_decay_and_vectors_do_not():
    model = tiny_models.model(trainable_from=STAGE)
    groups = build_optimizer(model, replace(OPTIMIZER, weight_decay=0.3)).param_groups
    decay = {(one.ndim > 1, group["weight_decay"]) for group in groups for one in group["params"]}
    assert decay == {(True, 0.3), (False, 0.0)}


def test_the_optimizer_holds_every_trainable_parameter_once():
    model = tiny_models.model(trainable_from=STAGE)
    held = [id(one) for group in build_optimizer(model, OPTIMIZER).param_groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in model.parameters() if one.requires_grad)


@each_case(
    ("num_epochs", "num_samples", "batch_size", "num_steps"),
    [
        (1.0, 100, 10, 10),
        (3.0, 10, 4, 8),  # 7.5 steps, rounded up
        (0.1, 30, 3, 1),  # 1.0000000000000002 in floating point
        (0.001, 10, 4, 1),
    ],
)
def test_epochs_are_rounded_up_to_whole_steps(num_epochs, num_samples, batch_size, num_steps):
    config = TrainingConfig(num_epochs=num_epochs, batch_size=batch_size)
    assert num_training_steps(config, num_samples) == num_steps
