from dataclasses import replace

import pytest
import torch

from captioning.training.collectives import Flags
from captioning.training.gradients import GradientComputer
from captioning.training.losses import cross_entropy_sum
from captioning.training.transfer import load_part
from tests.support import tiny_models
from tests.support.tiny_models import CPU, OPTIMIZER, STAGE, TRAINING, distance, resumed, steps_of, trained


@pytest.mark.parametrize("delay_steps", [0, 4])  # resumed at step 3: the encoder learns already, or not yet
def test_a_resumed_run_ends_in_the_same_bits_before_and_after_the_encoder_begins_to_learn(tmp_path, delay_steps):
    optimizer = replace(OPTIMIZER, encoder_delay_steps=delay_steps)
    undisturbed, continued = trained(optimizer=optimizer), resumed(tmp_path / "checkpoint", optimizer=optimizer)
    assert distance(continued["weights"], undisturbed["weights"]) == 0.0


@pytest.mark.parametrize("decoder", tiny_models.DECODERS)
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, decoder):
    undisturbed, continued = trained(decoder=decoder), resumed(tmp_path / "checkpoint", decoder=decoder)
    assert distance(continued["weights"], undisturbed["weights"]) == 0.0
    assert continued["losses"] == undisturbed["losses"]


def test_dropout_and_augmentation_are_on_in_these_runs():
    seeds = [trained(config=replace(TRAINING, seed=seed))["losses"][0] for seed in (TRAINING.seed, 1)]
    images = [next(tiny_models.batches([step]))[0].images for step in (0, 12)]
    assert seeds[0] != seeds[1]
    assert not torch.equal(*images)


@pytest.mark.parametrize(("decoder", "num_parts"), [("lstm", 2), ("lstm", 5), ("attend", 3), ("transformer", 5)])
def test_accumulation_changes_nothing(decoder, num_parts):
    whole, parts = (trained(is_double=True, decoder=decoder, num_parts=number) for number in (1, num_parts))
    assert parts["losses"] == pytest.approx(whole["losses"], abs=1e-9, rel=0)
    assert distance(parts["weights"], whole["weights"]) < 1e-9


@pytest.mark.parametrize(("arithmetic", "tolerance"), [(1, 0.0), (2, 1e-5)])
def test_gradients_are_those_of_all_words_at_once(arithmetic, tolerance):
    # In arithmetic 1 to the last bit: so a run that an earlier release began resumes as if nothing had changed.
    part, models = tiny_models.batch(), [tiny_models.model(trainable_from=STAGE) for _ in range(2)]
    seed = TRAINING.seed + 1
    cross_entropy_sum(models[0](part, seed), part.targets()).backward()
    computer = GradientComputer(
        models[1], models[1], config=TRAINING, max_gradient_norm=1e9, device=CPU, arithmetic=arithmetic
    )
    computer.compute([load_part(part, CPU)])
    for plain, found in zip(*(model.parameters() for model in models), strict=True):
        if plain.grad is not None:
            wanted = plain.grad * (1 / part.num_targets)
            bound = tolerance * float(wanted.abs().max())
            torch.testing.assert_close(found.grad, wanted, rtol=tolerance, atol=bound)


def test_a_run_learns():
    first, *_, last = trained(optimizer=replace(OPTIMIZER, learning_rate=0.03))["losses"]
    assert last < first - 0.1


def test_training_ends_with_its_steps_and_reads_no_further():
    read = []
    batches = (batch for step, batch in enumerate(tiny_models.batches(range(9))) if read.append(step) is None)
    results = list(steps_of(tiny_models.training_state(), batches, num_steps=2))
    assert ([result.step for result in results], read) == ([1, 2], [0, 1])


def test_a_finished_run_takes_no_step():
    state = tiny_models.training_state()
    state.step = 2
    assert list(steps_of(state, tiny_models.batches(range(9)), num_steps=2)) == []


def test_a_request_to_stop_ends_training_after_its_step():
    batches = tiny_models.batches(range(9))
    results = list(steps_of(tiny_models.training_state(), batches, flags=lambda: Flags(stop=True)))
    assert [(result.step, result.flags) for result in results] == [(1, Flags(checkpoint=False, stop=True))]


@pytest.fixture(scope="module")
def trained_resnet():
    """Return a model with batch norm, before and after two steps that train its last stage."""
    torch.manual_seed(0)
    state = tiny_models.training_state(backbone="resnet18", trainable_from="layer4")
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    state.model.train()
    list(steps_of(state, tiny_models.batches(range(2)), num_steps=2))
    return before, state.model


def test_batch_norm_learns_nothing_from_batches(trained_resnet):
    before, model = trained_resnet
    statistics = {name for name in before if "running" in name or "tracked" in name}
    after = model.state_dict()
    assert len(statistics) == 60
    assert [name for name in statistics if not torch.equal(after[name], before[name])] == []


def test_frozen_parameters_stay_as_they_are(trained_resnet):
    before, model = trained_resnet
    moved = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    assert moved == {name for name, one in model.named_parameters() if one.requires_grad}


def test_frozen_parameters_have_no_gradient():
    model = tiny_models.model(trainable_from=STAGE)
    cross_entropy_sum(model(tiny_models.batch()), tiny_models.batch().targets()).backward()
    assert all((one.grad is None) != one.requires_grad for one in model.parameters())


@pytest.mark.parametrize("decoder", tiny_models.DECODERS)
def test_bf16_trains_close_to_fp32(decoder):
    precise, rough = (
        trained(config=replace(TRAINING, precision=precision), decoder=decoder) for precision in ("fp32", "bf16")
    )
    assert rough["losses"] == pytest.approx(precise["losses"], rel=0.02)
    assert rough["losses"] != precise["losses"]


def test_label_smoothing_is_in_the_training_loss():
    sharp, smooth = (trained(config=replace(TRAINING, label_smoothing=value))["losses"][0] for value in (0.0, 0.3))
    assert sharp != smooth
