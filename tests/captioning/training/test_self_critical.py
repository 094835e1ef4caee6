"""Self-critical training: its gradient is REINFORCE's, and its samples are those of any number of processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from captioning.data.batches import blank_batch
from captioning.data.vocabulary import EOS, PAD, UNK
from captioning.generation.beam_search import beam_search
from captioning.training.gradients import GradientComputer
from captioning.training.optimizer import build_optimizer
from captioning.training.self_critical import SelfCritic, advantages
from captioning.training.transfer import load_part
from tests.support import tiny_models
from tests.support.tiny_models import (
    CPU,
    DECODERS,
    NUM_SAMPLES,
    OPTIMIZER,
    TRAINING,
    VOCABULARY,
    all_frequencies,
    distance,
    steps_of,
)

BEAM = replace(TRAINING, self_critical_epochs=1.0, self_critical_samples=4, self_critical_bleu_weight=0.5)
CONFIG = replace(BEAM, self_critical_captions="sampled")
BOTH = pytest.mark.parametrize("config", [BEAM, CONFIG], ids=["beam", "sampled"])


def critic(model, config=CONFIG):
    return SelfCritic(model, all_frequencies(), config=config, device=CPU)


def sampled(model, positions=range(5), config=CONFIG):
    """Return the part of these images with sampled captions."""
    return critic(model, config).resample(load_part(tiny_models.batch(positions), CPU))


def test_advantages_sum_to_zero_and_compare_with_the_others():
    rewards = np.random.default_rng(0).random((7, 5))
    found = advantages(rewards)
    assert found.sum(1) == pytest.approx(0, abs=1e-12)
    assert found[2, 1] == pytest.approx(rewards[2, 1] - rewards[2, [0, 2, 3, 4]].mean())


@BOTH
def test_samples_end_once_and_have_no_unknown_word(config):
    part = sampled(tiny_models.model(), config=config)
    words = part.host.tokens[:, 1:]
    assert part.host.tokens.shape[0] == 5 * CONFIG.self_critical_samples
    assert not (words == UNK).any()
    assert set((words == EOS).sum(1).tolist()) <= {0, 1}


def test_the_captions_of_a_beam_are_those_of_the_search():
    model = tiny_models.model()
    part = sampled(model, config=BEAM)
    found = beam_search(model.decoder, part.batch.images, beam_size=4, max_words=BEAM.max_caption_words)
    assert [VOCABULARY.decode(row) for row in part.host.tokens[:, 1:].tolist()] == [
        VOCABULARY.decode(row) for row in found.tokens.flatten(0, 1).tolist()
    ]
    assert torch.equal(part.host.sampled.log_probability, found.log_probability.flatten())


@BOTH
@pytest.mark.parametrize("decoder", DECODERS)
def test_samples_do_not_depend_on_the_parts_of_a_batch(decoder, config):
    model = tiny_models.model(**DECODERS[decoder])
    whole = sampled(model, config=config)
    parts = [sampled(model, positions, config).host for positions in ([0], [1, 2], [3, 4])]
    texts = [VOCABULARY.decode(row) for part in parts for row in part.tokens[:, 1:].tolist()]
    assert texts == [VOCABULARY.decode(row) for row in whole.host.tokens[:, 1:].tolist()]
    rewards = torch.cat([part.sampled.reward for part in parts])
    assert torch.allclose(rewards, whole.host.sampled.reward, atol=1e-12)


def test_another_position_or_seed_draws_other_samples():
    model = tiny_models.model()
    parts = [
        sampled(model),
        sampled(model, range(NUM_SAMPLES, NUM_SAMPLES + 5)),  # the same images, an epoch later
        sampled(model, config=replace(CONFIG, seed=8)),
    ]
    assert len({tuple(part.host.tokens.flatten().tolist()) for part in parts}) == 3


def test_a_blank_batch_stays_blank():
    part = load_part(blank_batch(64), CPU)
    assert critic(tiny_models.model()).resample(part) is part


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_gradient_is_that_of_reinforce(decoder):
    """Against log-probabilities that automatic differentiation sums word by word, from steps of the decoder."""
    model = tiny_models.model(dropout=0.0, **DECODERS[decoder]).double()
    part = sampled(model)
    computer = GradientComputer(model, model, config=CONFIG, max_gradient_norm=1e9, device=CPU)
    found = computer.compute([part])
    gradient = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    batch = part.host
    rows, total = batch.image_of_caption, torch.zeros((), dtype=torch.float64)
    state = model.decoder.start(model.encode(part.batch.images)[rows])
    log_probability = torch.zeros(len(rows), dtype=torch.float64)
    for place in range(batch.tokens.shape[1] - 1):
        logits, state = model.decoder.step(state, batch.tokens[:, place])
        following = batch.tokens[:, place + 1]
        scored = logits.log_softmax(1).gather(1, following[:, None]).squeeze(1)
        log_probability = log_probability + torch.where(following == PAD, 0.0, scored)
    rewards = batch.sampled.reward.view(5, -1)
    for image in range(5):
        for number in range(CONFIG.self_critical_samples):
            others = [other for other in range(CONFIG.self_critical_samples) if other != number]
            advantage = rewards[image, number] - rewards[image, others].mean()
            total = total - advantage * log_probability.view(5, -1)[image, number]
    (total / batch.num_targets).backward()
    expected = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert gradient.keys() == expected.keys()
    assert distance(gradient, expected) < 1e-12
    assert found.totals.loss_nats == pytest.approx(-float(log_probability.sum().detach()) / batch.num_targets, abs=1e-6)
    assert found.totals.reward == pytest.approx(float(batch.sampled.reward.mean()), abs=1e-6)


def trained(config, num_parts=1, **changes):
    state = tiny_models.training_state(is_double=True, **changes)
    state.resample = critic(state.model, config).resample
    results = list(steps_of(state, tiny_models.batches(range(4), num_parts=num_parts), config=config, num_steps=4))
    return results, state.model.state_dict()


@pytest.mark.parametrize(
    ("config", "changes"), [(BEAM, {"trainable_from": tiny_models.STAGE}), (CONFIG, {})], ids=["beam", "sampled"]
)
def test_training_does_not_depend_on_the_parts_of_a_batch(changes, config):
    (whole, weights), (parts, others) = (trained(config, num_parts, **changes) for num_parts in (1, 3))
    assert [one.reward for one in parts] == pytest.approx([one.reward for one in whole], abs=1e-9)
    assert distance(weights, others) < 1e-9


def with_features(model, positions):
    """Return a batch with the features of its images, so that no step runs the encoder."""
    batch = tiny_models.batch(positions)
    return batch._replace(images=model.encode(batch.images).detach())


@BOTH
def test_the_reward_rises(config):
    config = replace(config, self_critical_samples=8, self_critical_bleu_weight=0.0)
    optimizer = replace(OPTIMIZER, learning_rate=0.03, warmup_steps=0, final_factor=1.0)
    state = tiny_models.training_state(dropout=0.0, optimizer=optimizer)
    batch = with_features(state.model, range(NUM_SAMPLES))
    list(steps_of(state, [[batch]] * 3, config=config, num_steps=3, optimizer=optimizer))
    state.resample = critic(state.model, config).resample
    state.optimizer = build_optimizer(state.model, optimizer)
    steps = steps_of(state, [[batch]] * 40, config=config, num_steps=43, optimizer=optimizer)
    rewards = [result.reward for result in steps]
    assert min(rewards[-3:]) > 1.2 * max(rewards[:3])


@BOTH
def test_a_sample_whose_loss_is_no_number_is_named(config):
    batch = with_features(tiny_models.model(), range(5))
    batch.images[3, 0, 0] = torch.nan
    state = tiny_models.training_state()
    config = replace(config, on_bad_sample="skip")
    state.resample = critic(state.model, config).resample
    result = next(iter(steps_of(state, [[batch]], config=config)))
    assert ([bad.key for bad in result.bad], result.num_images) == (["003"], 4)
    assert np.isfinite(result.loss_nats)
