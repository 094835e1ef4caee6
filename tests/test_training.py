import math
from dataclasses import replace

import pytest
import tiny
import torch
import torch.distributed as dist
from tiny import (
    CPU,
    NUM_STEPS,
    OPTIMIZER,
    STAGE,
    TRAINING,
    WORLD_SIZES,
    distance,
    in_groups,
    steps_of,
    summary,
)

from captioning.checkpoint import CheckpointDescription, restore, save_checkpoint
from captioning.config import OptimizerConfig, TrainingConfig
from captioning.losses import cross_entropy_sum
from captioning.training import (
    Flags,
    TrainingState,
    build_optimizer,
    encoder_ramp_at,
    learning_rate_at,
    num_training_steps,
    replicate,
    train,
    validation_loss,
)


def trained(rank=0, world_size=1, *, is_double=False, num_parts=1, **options):
    """Train to the end; return what the steps did, and the weights."""
    state = tiny.training_state(is_double=is_double, trainable_from=STAGE)
    batches = tiny.batches(range(NUM_STEPS), rank=rank, world_size=world_size, num_parts=num_parts)
    results = list(steps_of(state, batches, replica=replicate(state.model, CPU), **options))
    return summary(results, state)


def resumed(folder, rank=0, world_size=1):
    """Train for half of the steps, then in another model for the rest, from a checkpoint."""
    first = tiny.training_state(trainable_from=STAGE)
    batches = tiny.batches(range(NUM_STEPS // 2), rank=rank, world_size=world_size)
    results = list(steps_of(first, batches, replica=replicate(first.model, CPU)))
    if rank == 0:
        description = CheckpointDescription(
            step=first.step, model=tiny.MODEL, vocabulary_digest=tiny.VOCABULARY.digest, max_caption_words=8
        )
        save_checkpoint(folder, first, tiny.VOCABULARY, description=description, config="")
    if dist.is_initialized():
        dist.barrier()
    second = tiny.training_state(seed=9, trainable_from=STAGE)
    replica = replicate(second.model, CPU)
    restore(second, folder, tiny.VOCABULARY)
    batches = tiny.batches(range(second.step, NUM_STEPS), rank=rank, world_size=world_size)
    results += steps_of(second, batches, replica=replica)
    return summary(results, second)


def validated(rank=0, world_size=1, *, num_samples=5):
    positions = tiny.share(0, rank=rank, world_size=world_size, size=num_samples)
    batches = [tiny.batch([position]) for position in positions]
    return validation_loss(tiny.model().double(), batches, config=TRAINING, device=CPU)


def asked(rank, world_size):
    """Let the last process ask for a checkpoint in the first step, and the first one to stop in the second."""
    state, wishes = tiny.training_state(), iter([Flags(checkpoint=rank == world_size - 1), Flags(stop=rank == 0)])
    batches = tiny.batches(range(NUM_STEPS), rank=rank, world_size=world_size)
    results = steps_of(state, batches, replica=replicate(state.model, CPU), ask=lambda: next(wishes))
    return [tuple(result.flags) for result in results]


def failed(rank, world_size):
    """Give the last process alone a loss that is not a number in the second step; return what each raises."""
    state = tiny.training_state()
    batches = tiny.batches(range(NUM_STEPS), rank=rank, world_size=world_size)
    for _ in steps_of(state, batches, replica=(replica := replicate(state.model, CPU))):
        if rank == world_size - 1:
            state.model.decoder.output.bias.data[0] = math.nan
        try:
            next(steps_of(state, batches, replica=replica))
        except FloatingPointError as error:
            return str(error)
    return "nothing"


def timed(rank, world_size):
    """Take a step for which each process waits a second longer than the one before it; return what it tells."""
    state, ticks = tiny.training_state(), iter([100.0, 101.0 + rank, 110.0 + rank])
    result = next(
        train(
            state,
            replicate(state.model, CPU),
            tiny.batches([0], rank=rank, world_size=world_size),
            optimizer_config=OPTIMIZER,
            config=TRAINING,
            num_steps=1,
            device=CPU,
            clock=lambda: next(ticks),
        )
    )
    return result.data_wait_seconds, result.seconds


def replicated():
    """Replicate a model whose decoder fits its own image size alone."""
    return type(replicate(tiny.model(image_size_px=96, pooling="none"), CPU)).__name__


def seen_by(rank, size, folder):
    return {
        "double": trained(rank, size, is_double=True),
        "single": trained(rank, size),
        "resumed": resumed(folder / f"checkpoint-{size}", rank, size),
        "validation": [validated(rank, size), validated(rank, size, num_samples=2)],
        "flags": asked(rank, size),
        "failure": failed(rank, size),
        "replica": replicated(),
        "times": timed(rank, size),
    }


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    return in_groups(seen_by, tmp_path_factory.mktemp("groups"))


@pytest.fixture(scope="module")
def alone():
    return trained(is_double=True)


@pytest.mark.cluster
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_any_number_of_processes_has_the_losses_of_one(groups, alone, size):
    for seen in groups[size]:
        assert seen["double"]["losses"] == pytest.approx(alone["losses"], abs=1e-9, rel=0)


@pytest.mark.cluster
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_any_number_of_processes_ends_in_the_weights_of_one(groups, alone, size):
    assert max(distance(seen["double"]["weights"], alone["weights"]) for seen in groups[size]) < 1e-9


@pytest.mark.cluster
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_any_number_of_processes_sees_the_same_gradient_and_counts(groups, alone, size):
    for seen in groups[size]:
        assert seen["double"]["norms"] == pytest.approx(alone["norms"], rel=1e-9)
        assert seen["double"]["counts"] == alone["counts"]


@pytest.mark.cluster
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_all_processes_hold_the_same_weights(groups, size):
    first, *others = (seen["single"]["weights"] for seen in groups[size])
    assert [distance(first, other) for other in others] == [0.0] * (size - 1)


@pytest.mark.cluster
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_a_resumed_group_ends_in_the_same_bits(groups, size):
    for seen in groups[size]:
        assert distance(seen["resumed"]["weights"], seen["single"]["weights"]) == 0.0
        assert seen["resumed"]["losses"] == seen["single"]["losses"]


@pytest.mark.cluster
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_the_validation_loss_does_not_depend_on_the_number_of_processes(groups, size):
    # Of two samples, the third process has none.
    expected = [validated(), validated(num_samples=2)]
    for seen in groups[size]:
        assert seen["validation"] == pytest.approx(expected, abs=1e-9, rel=0)


@pytest.mark.cluster
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_what_one_process_asks_for_reaches_all_in_the_same_step(groups, size):
    assert [seen["flags"] for seen in groups[size]] == [[Flags(checkpoint=True), Flags(stop=True)]] * size


@pytest.mark.cluster
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_a_loss_that_is_no_number_on_one_process_stops_all(groups, size):
    assert all(seen["failure"].startswith("step 2: loss nan nats") for seen in groups[size])


@pytest.mark.cluster
@pytest.mark.parametrize(("size", "waited"), [(1, 1.0), (2, 1.5), (3, 2.0)])
def test_a_step_tells_the_mean_wait_for_data_and_its_own_time(groups, size, waited):
    assert [seen["times"] for seen in groups[size]] == [(waited, 10.0 + rank) for rank in range(size)]


@pytest.mark.cluster
def test_a_replica_takes_images_of_the_models_own_size(groups):
    names = {size: {seen["replica"] for seen in groups[size]} for size in WORLD_SIZES}
    assert names == {1: {"CaptionModel"}, 2: {"DistributedDataParallel"}, 3: {"DistributedDataParallel"}}


def test_a_resumed_run_ends_in_the_same_bits(tmp_path):
    undisturbed, continued = trained(), resumed(tmp_path / "checkpoint")
    assert distance(continued["weights"], undisturbed["weights"]) == 0.0
    assert continued["losses"] == undisturbed["losses"]


def test_dropout_and_augmentation_are_on_in_these_runs():
    seeds = [trained(config=replace(TRAINING, seed=seed))["losses"][0] for seed in (1, 2)]
    images = [next(tiny.batches([step]))[0].images for step in (0, 12)]
    assert seeds[0] != seeds[1]
    assert not torch.equal(*images)


@pytest.mark.parametrize("num_parts", [2, 3, 5])
def test_accumulation_changes_nothing(alone, num_parts):
    parts = trained(is_double=True, num_parts=num_parts)
    assert parts["losses"] == pytest.approx(alone["losses"], abs=1e-9, rel=0)
    assert distance(parts["weights"], alone["weights"]) < 1e-9


def test_a_run_learns():
    first, *_, last = trained(optimizer=replace(OPTIMIZER, learning_rate=0.03))["losses"]
    assert last < first - 0.1


# Plain descent at rate 1: a step moves the weights by the gradient.
DESCENT = OptimizerConfig(learning_rate=1.0, warmup_steps=0, max_gradient_norm=1e9)


def descent(**changes):
    """Return a state without dropout, whose optimizer subtracts the gradient from the weights."""
    model = tiny.training_state(is_double=True, dropout=0.0, **changes).model
    parameters = [one for one in model.parameters() if one.requires_grad]
    return TrainingState(model, torch.optim.SGD([{"params": parameters, "factor": 1.0, "is_encoder": False}], lr=1.0))


def step_and_gradient(optimizer=DESCENT, num_parts=1):
    """Take a step; return it, how the weights moved, and the gradient of the mean loss over the batch's words."""
    state = descent(trainable_from=STAGE)
    parameters = [one for one in state.model.parameters() if one.requires_grad]
    before = [one.detach().clone() for one in parameters]
    (whole,) = next(tiny.batches([0]))
    mean = cross_entropy_sum(state.model(whole), whole.targets()) / whole.num_targets
    gradient = torch.autograd.grad(mean, parameters)
    result = next(steps_of(state, tiny.batches([0], num_parts=num_parts), num_steps=1, optimizer=optimizer))
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
    (whole,) = next(tiny.batches([0]))
    result, *_ = step_and_gradient(num_parts=2)
    assert (result.step, result.num_words, result.num_images) == (1, whole.num_targets, 5)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.5), (1, 1.0), (3, 2.0), (4, 2.0), (9, 1.1), (14, 0.2), (99, 0.2)],  # half way: the mean of 2.0 and 0.2
)
def test_the_learning_rate_rises_and_falls(step, rate):
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=4, final_factor=0.1)
    assert learning_rate_at(step, config, num_steps=14) == pytest.approx(rate)


@pytest.mark.parametrize(("warmup_steps", "rates"), [(0, [2.0, 1.0]), (8, [0.25, 0.5])])
def test_the_learning_rate_without_warm_up_and_with_nothing_else(warmup_steps, rates):
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=warmup_steps, final_factor=0.0)
    assert [learning_rate_at(step, config, num_steps=2) for step in range(2)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("delay_steps", "ramp"), [(0, [1.0, 1.0, 1.0, 1.0, 1.0]), (2, [0.0, 0.0, 0.0, 0.5, 1.0]), (1, [0, 0, 1, 1, 1])]
)
def test_the_encoder_begins_to_learn_after_its_delay(delay_steps, ramp):
    config = OptimizerConfig(encoder_delay_steps=delay_steps)
    assert [encoder_ramp_at(step, config) for step in range(5)] == ramp


def test_a_delayed_encoder_does_not_move():
    state = tiny.training_state(trainable_from=STAGE)
    before = {name: tensor.clone() for name, tensor in state.model.encoder.state_dict().items()}
    list(steps_of(state, tiny.batches(range(2)), num_steps=2, optimizer=replace(OPTIMIZER, encoder_delay_steps=5)))
    assert distance(state.model.encoder.state_dict(), before) == 0.0


def test_every_part_learns_at_its_own_rate():
    state = tiny.training_state(trainable_from=STAGE)
    optimizer = replace(OPTIMIZER, encoder_learning_rate_factor=0.1)
    state.optimizer = build_optimizer(state.model, optimizer)
    result = next(steps_of(state, tiny.batches([0]), optimizer=optimizer))
    rate_of = {id(one): group["lr"] for group in state.optimizer.param_groups for one in group["params"]}
    parts = (state.model.encoder, state.model.decoder)
    rates = [{rate_of[id(one)] for one in part.parameters() if one.requires_grad} for part in parts]
    assert rates == [{result.learning_rate * 0.1}, {result.learning_rate}]


def test_matrices_decay_and_vectors_do_not():
    model = tiny.model(trainable_from=STAGE)
    groups = build_optimizer(model, replace(OPTIMIZER, weight_decay=0.3)).param_groups
    decay = {(one.ndim > 1, group["weight_decay"]) for group in groups for one in group["params"]}
    assert decay == {(True, 0.3), (False, 0.0)}


def test_the_optimizer_holds_every_trainable_parameter_once():
    model = tiny.model(trainable_from=STAGE)
    held = [id(one) for group in build_optimizer(model, OPTIMIZER).param_groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in model.parameters() if one.requires_grad)


@pytest.mark.parametrize(
    ("num_epochs", "num_samples", "batch_size", "num_steps"),
    [
        (1.0, 100, 10, 10),
        (3.0, 10, 4, 8),  # seven and a half: the last one is whole
        (0.1, 30, 3, 1),  # 1.0000000000000002 in floating point
        (0.001, 10, 4, 1),
    ],
)
def test_epochs_are_rounded_up_to_whole_steps(num_epochs, num_samples, batch_size, num_steps):
    config = TrainingConfig(num_epochs=num_epochs, batch_size=batch_size)
    assert num_training_steps(config, num_samples) == num_steps


def test_training_ends_with_its_steps_and_reads_no_further():
    read = []
    batches = (batch for step, batch in enumerate(tiny.batches(range(9))) if read.append(step) is None)
    results = list(steps_of(tiny.training_state(), batches, num_steps=2))
    assert ([result.step for result in results], read) == ([1, 2], [0, 1])


def test_a_finished_run_takes_no_step():
    state = tiny.training_state()
    state.step = 2
    assert list(steps_of(state, tiny.batches(range(9)), num_steps=2)) == []


def test_a_wish_to_stop_ends_training_after_its_step():
    results = list(steps_of(tiny.training_state(), tiny.batches(range(9)), ask=lambda: Flags(stop=True)))
    assert [(result.step, result.flags) for result in results] == [(1, Flags(checkpoint=False, stop=True))]


@pytest.fixture(scope="module")
def trained_resnet():
    """Return a model with batch-norm before and after two steps that train its last stage."""
    torch.manual_seed(0)
    state = tiny.training_state(backbone="resnet18", trainable_from="layer4")
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    state.model.train()
    list(steps_of(state, tiny.batches(range(2)), num_steps=2))
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
    model = tiny.model(trainable_from=STAGE)
    cross_entropy_sum(model(tiny.batch()), tiny.batch().targets()).backward()
    assert all((one.grad is None) != one.requires_grad for one in model.parameters())


def corrupted(value):
    """Return a state whose first score is a value that spoils its loss."""
    state = tiny.training_state()
    state.model.decoder.output.bias.data[0] = value
    return state


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])  # the last is finite, and too large to be added up
def test_a_loss_that_is_no_number_stops_training_and_names_samples(value):
    with pytest.raises(FloatingPointError, match=r"step 1: loss nan nats .* lower the learning rate, .* 000, 001, 002"):
        next(steps_of(corrupted(value), tiny.batches(range(1))))


def test_a_gradient_that_is_no_number_stops_training_before_the_weights_change():
    state = tiny.training_state()
    state.model.decoder.output.bias.register_hook(lambda gradient: gradient * math.inf)
    before = state.model.decoder.word_embedding.weight.clone()
    with pytest.raises(FloatingPointError, match=r"step 1: loss \d\.\d+ nats and gradient norm (nan|inf) are not both"):
        next(steps_of(state, tiny.batches(range(1))))
    assert torch.equal(state.model.decoder.word_embedding.weight, before)


def test_bf16_trains_close_to_fp32():
    precise, rough = (trained(config=replace(TRAINING, precision=precision)) for precision in ("fp32", "bf16"))
    assert rough["losses"] == pytest.approx(precise["losses"], rel=0.02)
    assert rough["losses"] != precise["losses"]


def test_label_smoothing_is_in_the_training_loss():
    sharp, smooth = (trained(config=replace(TRAINING, label_smoothing=value))["losses"][0] for value in (0.0, 0.3))
    assert sharp != smooth


def test_the_validation_loss_is_the_mean_over_words_without_dropout_or_smoothing():
    model, batches = tiny.model(), [tiny.batch([0, 1]), tiny.batch([2])]
    config = replace(TRAINING, label_smoothing=0.3)
    total = sum(cross_entropy_sum(model(one), one.targets()).item() for one in batches)
    mean = total / sum(one.num_targets for one in batches)
    assert validation_loss(model, batches, config=config, device=CPU) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("mode", [True, False])
def test_validation_leaves_the_models_mode_as_it_was(mode):
    model = tiny.model().train(mode)
    validation_loss(model, [tiny.batch([0])], config=TRAINING, device=CPU)
    assert model.training is mode


@pytest.mark.parametrize(("value", "positions", "counts"), [(math.nan, [0, 1], "2 of 2"), (0.0, [], "0 of 0")])
def test_a_validation_loss_that_is_no_number_is_refused(value, positions, counts):
    batches = [tiny.batch([position]) for position in positions]
    message = rf"the validation loss is not a finite number \({counts} images have no finite loss\); lower the learning"
    with pytest.raises(FloatingPointError, match=message):
        validation_loss(corrupted(value).model, batches, config=TRAINING, device=CPU)
