"""Training on features: the same batches as on images, on any number of ranks, and the same losses."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from captioning.config import OptimizerConfig, TrainingConfig
from captioning.training.validation import validation_loss
from cluster.config import StorageConfig, TrainRun
from cluster.data.loading import calibration_images, training_batches, validation_batches
from cluster.data.shard_set import ShardSet
from shards.features.reader import FeatureReader
from tests.support.feature_sets import ENCODER, SEED, damage, extracted
from tests.support.run_steps import steps_of_run

CPU = torch.device("cpu")
CONFIG = TrainingConfig(batch_size=13, seed=SEED, crop_area=1.0, flip=False)
NUM_VIEWS = 4


@pytest.fixture(scope="module")
def folder(drawn_features):
    """Return a feature set of one view."""
    return drawn_features


@pytest.fixture(scope="module")
def several(drawn_shards, tmp_path_factory):
    """Return a feature set of several views."""
    return extracted(drawn_shards, tmp_path_factory.mktemp("several"), views=NUM_VIEWS)


def steps_of(shard_set, steps, *, world_size=1, config=CONFIG, num_loader_processes=0):
    """Return the global batch of each step: the batches of all ranks and parts, joined."""
    shares = [
        training_batches(
            shard_set,
            "train",
            model=ENCODER,
            config=config,
            ranks=(rank, world_size),
            steps=steps,
            num_loader_processes=num_loader_processes,
        )
        for rank in range(world_size)
    ]
    return [[part for parts in of_ranks for part in parts] for of_ranks in zip(*shares, strict=True)]


def joined(steps, name):
    return torch.cat([getattr(part, name).flatten() for parts in steps for part in parts])


def keys(steps):
    return [key for parts in steps for part in parts for key in part.keys]


def test_batches_are_those_of_images_but_for_the_images(drawn_shards, folder):
    alone, featured_ = (steps_of(ShardSet(drawn_shards, one), range(11)) for one in (None, folder))
    assert keys(alone) == keys(featured_)
    for name in ("tokens", "image_of_caption", "position", "caption"):
        assert torch.equal(joined(alone, name), joined(featured_, name))


def test_any_number_of_ranks_draws_the_same_views(drawn_shards, several):
    shard_set = ShardSet(drawn_shards, several)
    alone, *others = (joined(steps_of(shard_set, range(12), world_size=size), "images") for size in (1, 2, 3, 5))
    assert [torch.equal(together, alone) for together in others] == [True] * 3


@pytest.mark.parametrize("options", [{"num_loader_processes": 2}, {"config": replace(CONFIG, accumulation=3)}])
def test_views_do_not_depend_on_who_reads_them(drawn_shards, several, options):
    shard_set = ShardSet(drawn_shards, several)
    plain, other = steps_of(shard_set, range(4)), steps_of(shard_set, range(4), **options)
    assert torch.equal(joined(plain, "images"), joined(other, "images"))


def test_reading_resumes_at_any_step(drawn_shards, several):
    shard_set = ShardSet(drawn_shards, several)
    whole, rest = steps_of(shard_set, range(12))[7:], steps_of(shard_set, range(7, 12))
    assert torch.equal(joined(whole, "images"), joined(rest, "images"))


def test_another_epoch_shows_other_views(drawn_shards, several):
    config = replace(CONFIG, batch_size=120)
    first, second = (steps_of(ShardSet(drawn_shards, several), [epoch], config=config)[0][0] for epoch in (0, 1))
    rows = {key: row for row, key in enumerate(second.keys)}
    is_same = [torch.equal(first.images[row], second.images[rows[key]]) for row, key in enumerate(first.keys)]
    assert 0.1 < np.mean(is_same) < 0.45  # by chance a quarter


def test_validation_sees_the_centre(drawn_shards, several):
    shard_set = ShardSet(drawn_shards, several)
    reader = FeatureReader(several, shard_set.features.manifest, "val")
    batches = list(validation_batches(shard_set, "val", model=ENCODER, config=CONFIG, ranks=(0, 1)))
    wanted = np.empty((len(reader), *reader.view_shape), np.float16)
    for number in range(len(reader)):
        reader.copy_view(number, 0, wanted[number])
    assert torch.equal(torch.cat([batch.images for batch in batches]), torch.from_numpy(wanted))


def test_calibration_is_by_centres(drawn_shards, folder, several):
    one, four = (
        calibration_images(ShardSet(drawn_shards, features), "train", model=ENCODER, config=CONFIG)
        for features in (folder, several)
    )
    assert torch.equal(one, four)


def run_on(shards, features, home, **changes):
    return TrainRun(
        name="r",
        shards=shards,
        features=features,
        model=replace(ENCODER, **changes),
        optimizer=OptimizerConfig(warmup_steps=2, learning_rate=0.01),
        training=CONFIG,
        storage=StorageConfig(home=home),
    )


def trained(run, num_steps):
    """Train as a rank does; return the losses and the validation loss after it."""
    shard_set = ShardSet(run.shards, run.features)
    state, results = steps_of_run(run, shard_set, num_steps)
    losses = [result.loss_nats for result in results]
    validation = validation_batches(shard_set, "val", model=run.model, config=run.training, ranks=(0, 1))
    return [*losses, validation_loss(state.model, validation, config=run.training, device=CPU)]


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_losses_on_features_are_those_of_the_live_encoder(drawn_shards, folder, tmp_path, pooling):
    features = folder if pooling == "mean" else extracted(drawn_shards, tmp_path / "grid", regions="grid")
    live, featured_ = (trained(run_on(drawn_shards, one, tmp_path, pooling=pooling), 5) for one in (None, features))
    assert featured_ == pytest.approx(live, abs=1e-3)


def test_bf16_trains_on_features(drawn_shards, folder, tmp_path):
    run = run_on(drawn_shards, folder, tmp_path)
    coarse = replace(run, training=replace(run.training, precision="bf16"))
    assert trained(coarse, 3) == pytest.approx(trained(run, 3), abs=0.05)


@pytest.fixture(scope="module")
def with_bad(drawn_shards, tmp_path_factory):
    """Return a shard set with an image that does not decode, its features without it, and its key."""
    shards = tmp_path_factory.mktemp("bad") / "shards"
    shutil.copytree(drawn_shards, shards)
    key = ShardSet(shards).reader("train").read(3).key
    damage(shards / "train-000000.tar", key)
    return shards, extracted(shards, shards.parent / "features", skip_bad=True), key


def test_a_sample_without_features_is_a_bad_one(with_bad):
    shards, features, key = with_bad
    steps = steps_of(ShardSet(shards, features), range(1), config=replace(CONFIG, batch_size=120))
    bad = [one for part in steps[0] for one in part.bad]
    assert ([one.key for one in bad], steps[0][0].num_images) == ([key], 119)
    assert bad[0].reason == "it has no features: its image could not be encoded when they were extracted"


def test_other_samples_keep_their_numbers(with_bad, drawn_shards, folder):
    shards, features, key = with_bad
    config = replace(CONFIG, batch_size=40)
    whole = steps_of(ShardSet(drawn_shards, folder), range(3), config=config)
    broken = steps_of(ShardSet(shards, features), range(3), config=config)
    assert keys(broken) == [one for one in keys(whole) if one != key]


def test_a_batch_of_bad_samples_is_blank(with_bad):
    shards, features, _ = with_bad
    source = ShardSet(shards, features).source("train", model=ENCODER, config=CONFIG)
    batch = source.batch([3], [0], is_training=True)
    assert (batch.num_images, batch.num_targets, tuple(batch.images.shape)) == (0, 0, (1, 1, 512))


def test_a_batch_without_some_images_is_that_of_the_others(drawn_shards, folder):
    source = ShardSet(drawn_shards, folder).source("train", model=ENCODER, config=CONFIG)
    whole, rest = (source.batch(rows, rows, is_training=True) for rows in ([0, 1, 2], [0, 2]))
    left = whole.without({1})
    assert torch.equal(left.images, rest.images)
    assert left.without({0, 2}).images.shape == rest.images[:1].shape
