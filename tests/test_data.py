from dataclasses import replace

import pytest
import torch

from captioning.config import ModelConfig, TrainingConfig
from cluster.data import ShardSet, training_batches, validation_batches

MODEL = ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=32)
CONFIG = TrainingConfig(batch_size=13, crop_area=0.5)


@pytest.fixture(scope="module")
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


def steps_of(shard_set, steps, *, world_size=1, config=CONFIG, **options):
    """Return the global batch of each step: the batches of all ranks and parts, joined."""
    shares = [
        training_batches(
            shard_set, "train", model=MODEL, config=config, ranks=(rank, world_size), steps=steps, **options
        )
        for rank in range(world_size)
    ]
    return [[part for parts in of_ranks for part in parts] for of_ranks in zip(*shares, strict=True)]


def keys(batches):
    return [[key for part in parts for key in part.keys] for parts in batches]


def pixels(batches):
    return torch.cat([part.images for parts in batches for part in parts])


def test_an_epoch_reads_every_sample_once(shard_set):
    config = replace(CONFIG, batch_size=40)
    read = [key for step in keys(steps_of(shard_set, range(3), config=config)) for key in step]
    assert (len(read), len(set(read))) == (120, 120)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_any_number_of_workers_reads_the_same_global_batches(shard_set, world_size):
    alone, together = (steps_of(shard_set, range(12), world_size=size) for size in (1, world_size))
    assert keys(alone) == keys(together)


def test_augmentation_does_not_depend_on_who_reads(shard_set):
    alone, together = (steps_of(shard_set, range(4), world_size=size) for size in (1, 3))
    assert torch.equal(pixels(alone), pixels(together))


def test_reading_resumes_at_any_step(shard_set):
    assert torch.equal(pixels(steps_of(shard_set, range(12))[7:]), pixels(steps_of(shard_set, range(7, 12))))


def test_parts_hold_the_same_samples(shard_set):
    parts = steps_of(shard_set, range(3), config=replace(CONFIG, accumulation=4))
    assert (keys(parts), [len(step) for step in parts]) == (keys(steps_of(shard_set, range(3))), [4, 4, 4])


def test_a_share_smaller_than_its_parts_has_fewer_parts(shard_set):
    config = replace(CONFIG, batch_size=2, accumulation=4)
    assert [len(step) for step in steps_of(shard_set, range(2), config=config)] == [2, 2]


def test_loader_processes_read_the_same(shard_set):
    here, beside = (steps_of(shard_set, range(4), num_loader_processes=count) for count in (0, 2))
    assert torch.equal(pixels(here), pixels(beside))


@pytest.mark.parametrize("world_size", [1, 2, 7, 40])  # 40: more workers than validation samples
def test_validation_reads_every_sample_once(shard_set, world_size):
    read = [
        key
        for rank in range(world_size)
        for batch in validation_batches(shard_set, "val", model=MODEL, config=CONFIG, ranks=(rank, world_size))
        for key in batch.keys
    ]
    assert (len(read), len(set(read))) == (30, 30)


def test_an_unknown_split_is_refused(shard_set):
    with pytest.raises(ValueError, match="the shard set has no split test; it has train, val"):
        shard_set.reader("test")


def test_an_altered_vocabulary_is_refused(drawn_shards, tmp_path):
    import shutil

    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    with (folder / "vocabulary.txt").open("a") as file:
        file.write("zebra\n")
    with pytest.raises(ValueError, match="differs from the vocabulary in the manifest"):
        ShardSet(folder)
