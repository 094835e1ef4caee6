"""A bad sample is named or left out; a model with weights that are not finite is not blamed on a sample."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch

from captioning.data.batches import BadSample, blank_batch
from captioning.training.bad_samples import BadSampleError
from tests.support import tiny_models
from tests.support.bad_samples import SKIP, sample_at, training_state, validated, white_at
from tests.support.tiny_models import NUM_STEPS, TRAINING, distance, steps_of


def test_the_losses_that_an_error_tells_are_those_of_the_step():
    config = replace(SKIP, label_smoothing=0.3)
    (batch,) = next(tiny_models.batches([0], sample_at=white_at(3)))
    result = next(steps_of(training_state(is_double=True), [[batch]], config=config))
    with pytest.raises(BadSampleError, match="003") as error:
        next(steps_of(training_state(is_double=True), [[batch]], config=replace(config, on_bad_sample="stop")))
    num_words = dict(zip(batch.keys, torch.bincount(batch.image_of_target()).tolist(), strict=True))
    total = sum(loss * num_words[key] for key, loss in error.value.losses.items() if key != "003")
    assert total / result.num_words == pytest.approx(result.loss_nats, abs=1e-9, rel=0)


def test_a_batch_without_any_good_sample_changes_nothing_and_counts():
    state = training_state()
    list(steps_of(state, tiny_models.batches(range(2)), num_steps=2))
    before = copy.deepcopy((state.model.state_dict(), state.optimizer.state_dict()["state"]))
    state.step = 3
    result = next(steps_of(state, tiny_models.batches([3], sample_at=sample_at), config=SKIP))
    after = (state.model.state_dict(), state.optimizer.state_dict()["state"])
    assert (result.step, result.num_words, result.gradient_norm, len(result.bad)) == (4, 0, 0.0, 5)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_one_bad_sample_is_told_as_one():
    expected = (
        r"^step 1: 1 bad sample, 003 of train-000000.tar \(its loss is nan nats\); leave bad samples out with --t"
    )
    with pytest.raises(BadSampleError, match=expected):
        next(steps_of(training_state(), tiny_models.batches([0], sample_at=white_at(3))))


@pytest.mark.parametrize(("num_white", "error"), [(2, BadSampleError), (3, FloatingPointError)])
def test_half_of_a_batch_is_bad_and_more_is_divergence(num_white, error):
    batch = tiny_models.batch(range(4), sample_at=white_at(*range(num_white)))
    with pytest.raises(error, match=r"2 bad samples, first 000|\(images without a finite loss: 3 of 4\); lower the"):
        next(steps_of(training_state(), [[batch]]))


@pytest.mark.parametrize("config", [TRAINING, SKIP])
def test_weights_that_are_no_number_are_not_blamed_on_a_sample(config):
    state = training_state()
    (batch,) = next(tiny_models.batches([0]))
    words, counts = batch.tokens[batch.tokens > 3].unique(return_counts=True)
    state.model.decoder.word_embedding.weight.data[words[counts.argmin()]] = math.nan
    with pytest.raises(FloatingPointError, match=r"loss nan nats/word .* \(images without a finite loss: [12] of 5\)"):
        next(steps_of(state, [[batch]], config=config))


@pytest.mark.parametrize("white", [(), (3,)])
def test_a_gradient_that_is_no_number_is_not_blamed_on_a_sample(white):
    state = training_state()
    state.model.decoder.output.bias.register_hook(lambda gradient: gradient * math.inf)
    before = copy.deepcopy(state.model.state_dict())
    with pytest.raises(
        FloatingPointError, match=r"step 1: loss \d\.\d+ nats/word or gradient norm (nan|inf) .*; lower the"
    ):
        next(steps_of(state, tiny_models.batches([0], sample_at=white_at(*white)), config=SKIP))
    assert distance(state.model.state_dict(), before) == 0.0


def test_what_stopped_a_step_leaves_no_gradient_behind():
    state, other = training_state(), training_state()
    with pytest.raises(BadSampleError, match="on-bad-sample skip"):
        next(steps_of(state, tiny_models.batches([0], sample_at=white_at(3))))
    for one in (state, other):
        list(steps_of(one, tiny_models.batches(range(NUM_STEPS))))
    assert distance(state.model.state_dict(), other.model.state_dict()) == 0.0


def test_most_validation_images_without_a_loss_are_divergence():
    told = validated(positions=range(4), sample_at=white_at(0, 1, 2))
    assert "is not finite (images without a finite loss: 3 of 4); lower the learning rate" in told


def test_a_validation_that_leaves_samples_out_is_logged(caplog):
    validated(positions=range(5), sample_at=white_at(3))
    expected = "validation leaves out 1 bad sample, 003 of train-000000.tar (its loss is nan nats)"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_the_error_travels_between_processes():
    error = BadSampleError(3, [BadSample("1", "s.tar", 7, "unread")], {"1": 2.0})
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.step, copied.bad, copied.losses) == (str(error), 3, error.bad, {"1": 2.0})


def test_label_smoothing_and_bf16_meet_a_blank_batch():
    config = replace(SKIP, label_smoothing=0.1, precision="bf16")
    batches = [[tiny_models.batch([0]), blank_batch(64)]]
    alone = [[tiny_models.batch([0])]]
    losses = [next(steps_of(training_state(), each, config=config)).loss_nats for each in (batches, alone)]
    assert losses[0] == losses[1]
