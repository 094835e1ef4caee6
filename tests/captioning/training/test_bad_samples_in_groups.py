"""Bad samples in a group: all processes name the same ones, and skipping them equals training without them."""

import copy
import math

import pytest
import torch.distributed as dist

from captioning.data.batches import blank_batch
from captioning.training.bad_samples import BadSampleError
from captioning.training.ddp import replicate
from captioning.training.losses import cross_entropy_sum
from tests.support import tiny_models
from tests.support.bad_samples import DAMAGED, SKIP, UNNUMBERED, sample_at, training_state, validated, white_at
from tests.support.tiny_models import CPU, NUM_STEPS, TRAINING, WORLD_SIZES, distance, in_groups, steps_of, summary

pytestmark = pytest.mark.cluster

ALL_BAD = DAMAGED | UNNUMBERED


def trained(rank=0, world_size=1, *, num_parts=1, batches=None, config=SKIP, **options):
    state = training_state(**options)
    batches = batches or tiny_models.batches(
        range(NUM_STEPS), rank=rank, world_size=world_size, num_parts=num_parts, sample_at=sample_at
    )
    return summary(list(steps_of(state, batches, replica=replicate(state.model, CPU), config=config)), state)


def resumed(rank, world_size):
    """Train for half of the steps, then resume in another model for the rest."""
    first, second = training_state(), training_state(seed=9)
    results = []
    for state, steps in ((first, range(3)), (second, range(3, NUM_STEPS))):
        replica = replicate(state.model, CPU)
        if state is second:
            second.model.load_state_dict(first.model.state_dict())
            second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
            second.step = first.step
        batches = tiny_models.batches(steps, rank=rank, world_size=world_size, sample_at=sample_at)
        results += steps_of(state, batches, replica=replica, config=SKIP)
    return summary(results, second)


def stopped(rank=0, world_size=1, *, step, sample_at=sample_at, config=TRAINING):
    """Take one step that must fail; return its error, and how far the weights moved."""
    state = training_state(is_double=True, dropout=0.0)
    state.step = step
    before = copy.deepcopy(state.model.state_dict())
    batches = tiny_models.batches([step], rank=rank, world_size=world_size, sample_at=sample_at)
    try:
        next(steps_of(state, batches, replica=replicate(state.model, CPU), config=config))
    except (BadSampleError, FloatingPointError) as error:
        told = {name: getattr(error, name, None) for name in ("step", "losses")}
        bad = [sample.position for sample in getattr(error, "bad", ())]
        moved = distance(state.model.state_dict(), before)
        return {"kind": type(error).__name__, "message": str(error), "bad": bad, "moved": moved, **told}
    return {"kind": "nothing"}


def messages_sent(rank, world_size):
    """Return the collectives that Python code calls while training on good samples."""
    with pytest.MonkeyPatch.context() as patch:
        sent = []
        for name in ("all_reduce", "all_gather_object"):
            original = getattr(dist, name)
            patch.setattr(dist, name, lambda *args, of=original, by=name: (sent.append(by), of(*args)))
        trained(rank, world_size, batches=tiny_models.batches(range(NUM_STEPS), rank=rank, world_size=world_size))
    return sent


def seen_by(rank, size, folder):
    return {
        "skipped": trained(rank, size, is_double=True),
        "in_parts": trained(rank, size, is_double=True, num_parts=2),
        "single": trained(rank, size),
        "resumed": resumed(rank, size),
        "damaged": stopped(rank, size, step=1),
        "unnumbered": stopped(rank, size, step=4, sample_at=white_at(22, 24)),
        "diverged": stopped(rank, size, step=4, sample_at=white_at(22, 23, 24), config=SKIP),
        "validated": validated(rank, size, sample_at=white_at(7)),
        "validated_damaged": validated(rank, size),
        "validation_stopped": validated(rank, size, config=TRAINING),
        "messages": messages_sent(rank, size),
    }


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    return in_groups(seen_by, tmp_path_factory.mktemp("groups"))


@pytest.fixture(scope="module")
def without_them():
    """Return the result of training on the same batches without the bad samples."""
    kept = [[position for position in tiny_models.share(step) if position not in ALL_BAD] for step in range(NUM_STEPS)]
    batches = [
        [tiny_models.batch(positions, is_augmented=True) if positions else blank_batch(64)] for positions in kept
    ]
    return trained(is_double=True, batches=batches, config=TRAINING)


@pytest.mark.parametrize("how", ["skipped", "in_parts"])
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_skipping_is_training_without_them_on_any_number_of_processes(groups, without_them, size, how):
    for seen in (seen[how] for seen in groups[size]):
        assert seen["losses"] == pytest.approx(without_them["losses"], abs=1e-9, rel=0, nan_ok=True)
        assert seen["norms"] == pytest.approx(without_them["norms"], rel=1e-9)
        assert seen["counts"] == without_them["counts"]
        assert distance(seen["weights"], without_them["weights"]) < 1e-9


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_every_process_lists_what_was_left_out_of_each_step(groups, size):
    expected = [[position for position in tiny_models.share(step) if position in ALL_BAD] for step in range(NUM_STEPS)]
    for seen in groups[size]:
        assert [[position for _, _, position, _ in bad] for bad in seen["skipped"]["bad"]] == expected


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_what_was_left_out_is_known_by_key_shard_and_reason(groups, size):
    assert groups[size][-1]["skipped"]["bad"][4] == [
        ("008", "train-000001.tar", 20, "unread"),
        ("010", "train-000002.tar", 22, "its loss is nan nats"),
        ("000", "train-000000.tar", 24, "its loss is nan nats"),
    ]


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_all_processes_hold_the_same_weights_after_skipping(groups, size):
    first, *others = (seen["single"]["weights"] for seen in groups[size])
    assert [distance(first, other) for other in others] == [0.0] * (size - 1)


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_a_resumed_run_that_skips_ends_in_the_same_bits(groups, size):
    for seen in groups[size]:
        assert distance(seen["resumed"]["weights"], seen["single"]["weights"]) == 0.0


@pytest.mark.parametrize("size", WORLD_SIZES)
@pytest.mark.parametrize(
    ("cause", "kind", "step", "bad", "message"),
    [
        ("damaged", "BadSampleError", 2, [5, 6], "step 2: 2 bad samples, first 005 of train-000001.tar (unread); "),
        ("unnumbered", "BadSampleError", 5, [22, 24], "step 5: 2 bad samples, first 010 of train-000002.tar (its loss"),
        ("diverged", "FloatingPointError", None, [], "step 5: loss nan nats/word or gradient norm nan is not finite"),
    ],
)
def test_every_process_stops_alike_and_leaves_the_weights(groups, size, cause, kind, step, bad, message):
    (told,) = {repr({**seen[cause], "losses": None}): seen[cause] for seen in groups[size]}.values()
    assert told["message"].startswith(message)
    assert (told["kind"], told["step"], told["bad"], told["moved"]) == (kind, step, bad, 0.0)


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_every_process_knows_the_loss_of_every_good_image(groups, size):
    model = training_state(is_double=True, dropout=0.0).model
    alone = {f"{position % 12:03}": tiny_models.batch([position], is_augmented=True) for position in (7, 8, 9)}
    expected = {
        key: cross_entropy_sum(model(one), one.targets()).item() / one.num_targets for key, one in alone.items()
    } | {"005": math.nan, "006": math.nan}
    for seen in groups[size]:
        assert seen["damaged"]["losses"] == pytest.approx(expected, abs=1e-9, rel=0, nan_ok=True)


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_validation_leaves_them_out_on_any_number_of_processes(groups, size):
    for bad, how in (({7}, "validated"), (DAMAGED, "validated_damaged")):
        good = [position for position in range(5, 15) if position not in bad]
        expected = validated(positions=good, sample_at=tiny_models.sample, config=TRAINING)
        assert [seen[how] for seen in groups[size]] == pytest.approx([expected] * size, abs=1e-9, rel=0)


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_validation_stops_alike_on_every_process(groups, size):
    expected = (
        "validation: 4 bad samples, first 005 of train-000001.tar (unread); "
        "leave bad samples out with --training.on-bad-sample skip, or run captioning convert again"
    )
    assert [seen["validation_stopped"] for seen in groups[size]] == [expected] * size


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_good_samples_cost_one_message_a_step(groups, size):
    assert [seen["messages"] for seen in groups[size]] == [["all_reduce"] * NUM_STEPS] * size
