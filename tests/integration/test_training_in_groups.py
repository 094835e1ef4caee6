import math

import numpy as np
import pytest

from captioning.training.collectives import Flags
from captioning.training.ddp import replicate
from captioning.training.loop import train
from captioning.training.self_critical import SelfCritic
from captioning.training.validation import validation_loss
from tests.support import tiny_models
from tests.support.tiny_models import (
    CPU,
    NUM_STEPS,
    OPTIMIZER,
    TRAINING,
    WORLD_SIZES,
    all_frequencies,
    distance,
    in_groups,
    resumed,
    steps_of,
    summary,
    trained,
)

pytestmark = pytest.mark.cluster


def validated(rank=0, world_size=1, *, num_samples=5):
    positions = tiny_models.share(0, rank=rank, world_size=world_size, size=num_samples)
    batches = [tiny_models.batch([position]) for position in positions]
    return validation_loss(tiny_models.model().double(), batches, config=TRAINING, device=CPU)


def asked(rank, world_size):
    """Let the last process ask for a checkpoint in the first step, and the first one to stop in the second."""
    state, requests = (
        tiny_models.training_state(),
        iter([Flags(checkpoint=rank == world_size - 1), Flags(stop=rank == 0)]),
    )
    batches = tiny_models.batches(range(NUM_STEPS), rank=rank, world_size=world_size)
    results = steps_of(state, batches, replica=replicate(state.model, CPU), flags=lambda: next(requests))
    return [tuple(result.flags) for result in results]


def failed(rank, world_size):
    """Give the last process alone a loss that is not a number in the second step; return what each raises."""
    state = tiny_models.training_state()
    batches = tiny_models.batches(range(NUM_STEPS), rank=rank, world_size=world_size)
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
    state, ticks = tiny_models.training_state(), iter([100.0, 100.0, 101.0 + rank, 110.0 + rank])
    result = next(
        train(
            state,
            replicate(state.model, CPU),
            tiny_models.batches([0], rank=rank, world_size=world_size),
            optimizer_config=OPTIMIZER,
            config=TRAINING,
            num_steps=1,
            device=CPU,
            clock=lambda: next(ticks),
        )
    )
    return result.data_wait_seconds, result.seconds


def critical(rank=0, world_size=1):
    """Train three self-critical steps; return their rewards and losses, and the weights."""
    state = tiny_models.training_state(is_double=True)
    state.resample = SelfCritic(state.model, all_frequencies(), config=TRAINING, device=CPU).resample
    batches = tiny_models.batches(range(3), rank=rank, world_size=world_size)
    results = list(steps_of(state, batches, replica=replicate(state.model, CPU), num_steps=3))
    return [(result.reward, result.loss_nats) for result in results], summary(results, state)["weights"]


def replicated():
    """Replicate a model whose decoder fits its own image size alone."""
    return type(replicate(tiny_models.model(image_size_px=96, pooling="none"), CPU)).__name__


def calibrated(rank):
    """Replicate models whose features were calibrated differently, as by GPUs of different kinds."""
    model = tiny_models.model()
    model.decoder.feature_mean.fill_(rank + 1)
    replicate(model, CPU)
    return float(model.decoder.feature_mean.mean())


def seen_by(rank, size, folder):
    return {
        "double": trained(rank, size, is_double=True),
        "single": trained(rank, size),
        "resumed": resumed(folder / f"checkpoint-{size}", rank, size),
        "validation": [validated(rank, size), validated(rank, size, num_samples=2)],
        "flags": asked(rank, size),
        "failure": failed(rank, size),
        "critical": critical(rank, size),
        "replica": replicated(),
        "calibration": calibrated(rank),
        "times": timed(rank, size),
    }


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    return in_groups(seen_by, tmp_path_factory.mktemp("groups"))


@pytest.fixture(scope="module")
def alone():
    return trained(is_double=True)


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_any_number_of_processes_has_the_losses_of_one(groups, alone, size):
    for seen in groups[size]:
        assert seen["double"]["losses"] == pytest.approx(alone["losses"], abs=1e-9, rel=0)


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_all_processes_have_the_calibration_of_the_first(groups, size):
    assert [seen["calibration"] for seen in groups[size]] == [1.0] * size


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_any_number_of_processes_ends_in_the_weights_of_one(groups, alone, size):
    assert max(distance(seen["double"]["weights"], alone["weights"]) for seen in groups[size]) < 1e-9


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_any_number_of_processes_sees_the_same_gradient_and_counts(groups, alone, size):
    for seen in groups[size]:
        assert seen["double"]["norms"] == pytest.approx(alone["norms"], rel=1e-9)
        assert seen["double"]["counts"] == alone["counts"]


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_all_processes_hold_the_same_weights(groups, size):
    first, *others = (seen["single"]["weights"] for seen in groups[size])
    assert [distance(first, other) for other in others] == [0.0] * (size - 1)


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_a_resumed_group_ends_in_the_same_bits(groups, size):
    for seen in groups[size]:
        assert distance(seen["resumed"]["weights"], seen["single"]["weights"]) == 0.0
        assert seen["resumed"]["losses"] == seen["single"]["losses"]


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_the_validation_loss_does_not_depend_on_the_number_of_processes(groups, size):
    # Of two samples, the third process has none.
    expected = [validated(), validated(num_samples=2)]
    for seen in groups[size]:
        assert seen["validation"] == pytest.approx(expected, abs=1e-9, rel=0)


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_any_number_of_processes_draws_and_rewards_the_samples_of_one(groups, size):
    results, weights = critical()
    for seen in groups[size]:
        assert np.array(seen["critical"][0]) == pytest.approx(np.array(results), abs=1e-6)
        assert distance(seen["critical"][1], weights) < 1e-9


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_what_one_process_asks_for_reaches_all_in_the_same_step(groups, size):
    assert [seen["flags"] for seen in groups[size]] == [[Flags(checkpoint=True), Flags(stop=True)]] * size


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_a_loss_that_is_no_number_on_one_process_stops_all(groups, size):
    assert all(seen["failure"].startswith("step 2: loss nan nats") for seen in groups[size])


@pytest.mark.parametrize(("size", "waited"), [(1, 1.0), (2, 1.5), (3, 2.0)])
def test_a_step_tells_the_mean_wait_for_data_and_its_own_time(groups, size, waited):
    assert [seen["times"] for seen in groups[size]] == [(waited, 10.0 + rank) for rank in range(size)]


def test_a_replica_takes_images_of_the_models_own_size(groups):
    names = {size: {seen["replica"] for seen in groups[size]} for size in WORLD_SIZES}
    assert names == {1: {"CaptionModel"}, 2: {"DistributedDataParallel"}, 3: {"DistributedDataParallel"}}
