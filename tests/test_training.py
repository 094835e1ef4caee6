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
from captioning.losses import cross_entropy_sum
from captioning.training import (
    Flags,
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


def test_bf16_trains_close_to_fp32():
    precise, rough = (trained(config=replace(TRAINING, precision=precision)) for precision in ("fp32", "bf16"))
    assert rough["losses"] == pytest.approx(precise["losses"], rel=0.02)
    assert rough["losses"] != precise["losses"]


def test_label_smoothing_is_in_the_training_loss():
    sharp, smooth = (trained(config=replace(TRAINING, label_smoothing=value))["losses"][0] for value in (0.0, 0.3))
    assert sharp != smooth
