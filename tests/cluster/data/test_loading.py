import re
import shutil
import tarfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

from captioning.config import ModelConfig, TrainingConfig
from captioning.data.batches import blank_batch
from cluster.data.loader_processes import NUM_MEASURED, Reading, ReadingCost, choose
from cluster.data.loading import calibration_images, training_batches, validation_batches
from cluster.data.shard_set import ShardSet
from tests.support.case_table import each_case

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


@pytest.fixture(scope="module")
def alone(shard_set):
    """Return the batches of twelve steps, read by one worker; nobody changes them."""
    return steps_of(shard_set, range(12))


def keys(batches):
    return [[key for part in parts for key in part.keys] for parts in batches]


def pixels(batches):
    return torch.cat([part.images for parts in batches for part in parts])


def test_an_epoch_reads_every_sample_once(shard_set):
    config = replace(CONFIG, batch_size=40)
    read = [key for step in keys(steps_of(shard_set, range(3), config=config)) for key in step]
    assert (len(read), len(set(read))) == (120, 120)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_any_number_of_workers_reads_the_same_global_batches_in_the_same_pixels(shard_set, alone, world_size):
    together = steps_of(shard_set, range(12), world_size=world_size)
    assert keys(together) == keys(alone)
    assert torch.equal(pixels(together), pixels(alone))


def test_reading_resumes_at_any_step(shard_set, alone):
    assert torch.equal(pixels(steps_of(shard_set, range(7, 12))), pixels(alone[7:]))


def test_parts_hold_the_same_samples(shard_set, alone):
    parts = steps_of(shard_set, range(3), config=replace(CONFIG, accumulation=4))
    assert (keys(parts), [len(step) for step in parts]) == (keys(alone[:3]), [4, 4, 4])


def test_a_share_smaller_than_its_parts_has_fewer_parts(shard_set):
    config = replace(CONFIG, batch_size=2, accumulation=4)
    assert [len(step) for step in steps_of(shard_set, range(2), config=config)] == [2, 2]


def test_loader_processes_read_the_same(shard_set, alone):
    beside = steps_of(shard_set, range(4), num_loader_processes=2)
    assert torch.equal(pixels(beside), pixels(alone[:4]))


def test_processes_that_take_over_in_between_read_the_same(shard_set):
    said = []
    here, beside = (
        steps_of(shard_set, range(9), num_loader_processes=count, num_cpus=2, say=said.append) for count in (0, None)
    )
    # The rest of a step takes no time here, so reading limits the speed.
    assert (torch.equal(pixels(here), pixels(beside)), [line[:16] for line in said]) == (True, ["1 loader process"])


@pytest.mark.parametrize("world_size", [1, 2, 7, 40])  # 40: more workers than validation samples
def test_validation_reads_every_sample_once(shard_set, world_size):
    read = [
        key
        for rank in range(world_size)
        for batch in validation_batches(shard_set, "val", model=MODEL, config=CONFIG, ranks=(rank, world_size))
        for key in batch.keys
    ]
    assert (len(read), len(set(read))) == (30, 30)


def damaged(drawn_shards, folder, *, suffix, num_samples, split="train"):
    """Copy the shard set and overwrite the first bytes of some files of the split's first shard."""
    shutil.copytree(drawn_shards, folder)
    path = folder / ShardSet(folder).manifest.of_split(split)[0].name
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.name.endswith(suffix)][:num_samples]
    content = bytearray(path.read_bytes())
    for member in members:
        content[member.offset_data : member.offset_data + 9] = b"?" * 9
    path.write_bytes(content)
    return ShardSet(folder), {member.name.partition(".")[0] for member in members}, path.name


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [("jpg", "the image does not decode (it begins with b'????????')"), ("json", "Expecting value")],
)
@pytest.mark.parametrize("num_loader_processes", [0, 2])
def test_bad_samples_are_left_out_and_named(shard_set, drawn_shards, tmp_path, suffix, reason, num_loader_processes):
    broken, bad_keys, shard = damaged(drawn_shards, tmp_path / "shards", suffix=suffix, num_samples=2)
    config = replace(CONFIG, batch_size=40)
    whole = steps_of(shard_set, range(3), config=config)
    read = steps_of(broken, range(3), config=config, num_loader_processes=num_loader_processes)
    found = [sample for parts in read for part in parts for sample in part.bad]
    assert keys(read) == [[key for key in step if key not in bad_keys] for step in keys(whole)]
    assert ({sample.key for sample in found}, {sample.shard for sample in found}) == (bad_keys, {shard})
    assert [sample.reason.startswith(reason) for sample in found] == [True, True]


def test_a_bad_sample_is_known_by_its_position(alone, drawn_shards, tmp_path):
    broken, _, _ = damaged(drawn_shards, tmp_path / "shards", suffix="json", num_samples=2)
    good = [part for parts in alone[:9] for part in parts]
    positions = {key: at for part in good for key, at in zip(part.keys, part.positions(), strict=True)}
    found = [one for parts in steps_of(broken, range(9), world_size=3) for part in parts for one in part.bad]
    assert [sample.position for sample in found] == [positions[sample.key] for sample in found]


def test_bad_validation_samples_are_left_out_and_named(drawn_shards, tmp_path):
    broken, bad_keys, _ = damaged(drawn_shards, tmp_path / "shards", suffix="jpg", num_samples=3, split="val")
    batches = list(validation_batches(broken, "val", model=MODEL, config=CONFIG, ranks=(0, 1)))
    found = [sample for batch in batches for sample in batch.bad]
    assert (sum(batch.num_images for batch in batches), {sample.key for sample in found}) == (27, bad_keys)
    assert [sample.position for sample in found] == [0, 1, 2]


def test_a_shard_that_cannot_be_opened_stops_the_reading(drawn_shards, tmp_path):
    shutil.copytree(drawn_shards, tmp_path / "shards")
    broken = ShardSet(tmp_path / "shards")
    (broken.folder / broken.manifest.of_split("train")[0].name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot be read .*; run captioning convert again"):
        steps_of(broken, range(10))


def test_calibration_goes_by_the_samples_that_can_be_read(shard_set, drawn_shards, tmp_path):
    broken, _, _ = damaged(drawn_shards, tmp_path / "shards", suffix="jpg", num_samples=2)
    counts = [len(calibration_images(one, "train", model=MODEL, config=CONFIG)) for one in (shard_set, broken)]
    assert counts == [120, 118]


def test_calibration_without_any_readable_sample_is_refused(drawn_shards, tmp_path):
    broken, _, shard = damaged(drawn_shards, tmp_path / "shards", suffix="jpg", num_samples=99, split="val")
    message = (
        rf"none of the first 30 images of val can be read, first \d+ of {shard} \(.*\); run captioning convert again"
    )
    with pytest.raises(ValueError, match=message):
        calibration_images(broken, "val", model=MODEL, config=CONFIG)


SLOW = ReadingCost(read_seconds=0.03, other_seconds=0.01, batch_bytes=1000)


@each_case(
    ("cost", "options", "number", "reason"),
    [
        (SLOW, {"num_cpus": 8}, 3, "3 loader processes per worker: reading a batch takes 30.0 ms, 75.0 % of a step"),
        (SLOW, {"num_cpus": 2}, 1, "1 loader process per worker: "),
        (SLOW, {"num_cpus": 1}, 0, r"but a worker has one CPU; with --cluster.cpus-per-worker 2 or more"),
        (SLOW._replace(read_seconds=0.0002), {"num_cpus": 8}, 0, r"takes 0.2 ms, 2.0 % of a step$"),
        (SLOW._replace(other_seconds=0.0), {"num_cpus": 8}, 7, "100.0 % of a step"),
        # Half of the memory holds two batches for each process, and the one in use.
        (SLOW, {"num_cpus": 8, "shared_bytes": 10_000}, 2, "2 loader processes"),
        (SLOW, {"num_cpus": 8, "shared_bytes": 5_000}, 0, "but /dev/shm has no room for batches; give it more"),
    ],
)
def test_as_many_processes_read_as_keep_up(cost, options, number, reason):
    choice = choose(cost, **options)
    assert (choice.num_processes, re.search(reason, choice.reason) is None) == (number, False)


class Counted(Dataset):
    """Batches whose reading takes a time of its own on a clock that counts it."""

    def __init__(self, clock, seconds):
        self._clock, self._seconds = clock, seconds

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self._clock.now += self._seconds if index else 100  # the first one opens files
        return blank_batch(2)._replace(keys=(f"{index}",))


@pytest.mark.parametrize(
    ("num_processes", "said"),
    [(0, []), (None, ["no loader processes: reading a batch takes 10.0 ms, 1.0 % of a step"])],
)
def test_what_reading_takes_is_measured_and_said(num_processes, said):
    clock, lines, read = SimpleNamespace(now=0.0), [], []
    options = {"num_processes": num_processes, "num_cpus": 4, "say": lines.append, "clock": lambda: clock.now}
    for batch in Reading(lambda: Counted(clock, 0.01), **options):
        clock.now += 0.99
        read += batch.keys
    assert (read, lines) == ([f"{index}" for index in range(10)], said)


def test_nothing_is_said_of_fewer_batches_than_are_measured():
    lines = []
    clock = SimpleNamespace(now=0.0)
    batches = Reading(lambda: Counted(clock, 1), range(NUM_MEASURED), num_processes=None, say=lines.append)
    assert (len(batches), len(list(batches)), lines) == (NUM_MEASURED, NUM_MEASURED, [])
