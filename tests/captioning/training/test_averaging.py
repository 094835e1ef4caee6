import pytest
import torch

from captioning.training.averaging import WeightAverage, decay_at
from tests.support import tiny_models
from tests.support.case_table import each_case
from tests.support.tiny_models import EMA_DECAY, NUM_STEPS, STAGE, steps_of, training_state


@pytest.fixture(scope="module")
def state():
    """Return a state after some steps, with the weights after each of them."""
    state = training_state(trainable_from=STAGE, ema_decay=EMA_DECAY)
    seen = [trained_weights(state.model)]
    for _ in steps_of(state, tiny_models.batches(range(NUM_STEPS))):
        seen.append(trained_weights(state.model))
    return state, seen


def trained_weights(model):
    return {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}


@each_case(("step", "decay", "expected"), [(1, 0.999, 2 / 11), (100, 0.5, 0.5), (10**6, 0.999, 0.999), (1, 0.0, 0.0)])
def test_the_first_steps_keep_less_of_the_average(step, decay, expected):
    assert decay_at(step, decay) == pytest.approx(expected)


def test_the_average_is_that_of_the_weights_after_each_step(state):
    state, (first, *seen) = state
    expected = {name: weight.double() for name, weight in first.items()}
    for step, weights in enumerate(seen, start=1):
        share = decay_at(step, EMA_DECAY)
        expected = {name: share * one + (1 - share) * weights[name].double() for name, one in expected.items()}
    torch.testing.assert_close(
        state.average.weights, {name: one.float() for name, one in expected.items()}, rtol=0, atol=1e-6
    )


def test_frozen_weights_have_no_average(state):
    state, _ = state
    frozen = {name for name, one in state.model.named_parameters() if not one.requires_grad}
    assert frozen
    assert not frozen & state.average.weights.keys()


def test_the_model_has_the_average_for_a_while_and_then_its_own_weights_again(state):
    state, _ = state
    before = trained_weights(state.model)
    with state.average.applied():
        during = trained_weights(state.model)
    torch.testing.assert_close(during, state.average.weights, rtol=0, atol=0)
    torch.testing.assert_close(trained_weights(state.model), before, rtol=0, atol=0)


def test_an_average_of_nothing_is_the_weights_themselves():
    state = training_state(trainable_from=STAGE)
    average = WeightAverage(state.model, 0.0)
    list(steps_of(state, tiny_models.batches([0])))
    average.update(1)
    torch.testing.assert_close(average.weights, trained_weights(state.model), rtol=0, atol=0)
