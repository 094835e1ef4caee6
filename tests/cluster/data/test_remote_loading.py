"""Shard sets and feature sets at URLs, read in this process and its loader processes."""

import hashlib
import time
from dataclasses import replace

import fsspec
import pytest
import torch

from captioning.config import TrainingConfig
from cluster.checks.data import check_data
from cluster.config import StorageConfig, TrainRun
from cluster.data.loading import training_batches, validation_batches
from cluster.data.shard_set import ShardSet
from shards.manifest import load_manifest
from shards.reader import DamagedSampleError, ShardReader
from shards.storage.folders import open_folder
from tests.support.feature_sets import ENCODER, extracted

CONFIG = TrainingConfig(batch_size=13, crop_area=0.5)
URL = "memory://bucket/shards"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def system(drawn_shards):
    """Return a filesystem with the synthetic shard set in it."""
    system = fsspec.filesystem("memory")
    system.put(str(drawn_shards), "/bucket/shards", recursive=True)
    yield system
    system.rm("/", recursive=True)


@pytest.fixture
def run(system):
    return TrainRun(shards=URL, model=ENCODER, training=CONFIG)


def images(shard_set, *, config=CONFIG, num_loader_processes=0):
    """Return the images of twelve training steps, more than an epoch, and of the validation split."""
    options = {"model": ENCODER, "config": config, "ranks": (0, 1), "num_loader_processes": num_loader_processes}
    steps = training_batches(shard_set, "train", steps=range(12), **options)
    batches = [*(part for parts in steps for part in parts), *validation_batches(shard_set, "val", **options)]
    return torch.cat([batch.images for batch in batches])


def num_copies(cache):
    return len([path for path in cache.glob("*") if len(path.name) == 64])


@pytest.mark.parametrize(("num_loader_processes", "window_shards"), [(0, 1), (2, 16)])
def test_batches_are_those_of_the_folder(system, drawn_shards, num_loader_processes, window_shards):
    config = replace(CONFIG, shuffle_window_shards=window_shards)
    remote = images(ShardSet(URL), config=config, num_loader_processes=num_loader_processes)
    assert torch.equal(remote, images(ShardSet(drawn_shards), config=config))


def test_features_are_made_and_read_at_urls_as_in_folders(system, drawn_shards, tmp_path):
    extracted(URL, "memory://bucket/features")
    system.get("/bucket/features", str(tmp_path / "features"), recursive=True)
    remote, local = ShardSet(URL, "memory://bucket/features"), ShardSet(drawn_shards, tmp_path / "features")
    assert torch.equal(images(remote), images(local))


def test_the_data_are_checked_without_fetching_a_shard(run, cache):
    assert (check_data(run).folder.name, num_copies(cache)) == ("shards", 0)


def test_a_missing_shard_is_named(run, system):
    system.rm("/bucket/shards/val-000000.tar")
    with pytest.raises(FileNotFoundError, match=r"memory://bucket/shards lacks 1 of 1 shards, first val-000000\.tar"):
        check_data(run)


def test_a_shard_of_another_size_is_named(run, system):
    system.pipe_file("/bucket/shards/train-000001.tar", b"")
    message = r"memory://bucket/shards: 1 of 3 shards differ from the manifest, first train-000001\.tar"
    with pytest.raises(ValueError, match=message):
        check_data(run)


def test_a_window_that_does_not_fit_into_the_copies_is_refused(run):
    largest = max(shard.num_bytes for shard in load_manifest(open_folder(URL)).shards)
    small = replace(run, storage=StorageConfig(cache_gib=1.5 * largest / 2**30))
    message = (
        r"two shuffle windows, 4 shards of up to .* do not fit into the node's cache .*; use --cache-gib 0\.01 or a"
    )
    with pytest.raises(ValueError, match=message):
        check_data(small)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "manifest.json",
            "shards/manifest.json does not exist: .*shards is not a finished shard set; run",
        ),
        ("vocabulary.txt", "shards/vocabulary.txt does not exist; run captioning convert"),
    ],
)
def test_a_set_that_is_not_finished_is_named(system, name, message):
    system.rm(f"/bucket/shards/{name}")
    with pytest.raises(FileNotFoundError, match=f"^memory://bucket/{message}"):
        ShardSet(URL)


def test_a_damaged_sample_is_named_by_its_url(system, drawn_shards, tmp_path):
    (record, *_) = load_manifest(drawn_shards).of_split("train")
    content = (drawn_shards / record.name).read_bytes().replace(b'"image_id"', b'"other_id"', 1)
    system.pipe_file(f"/bucket/shards/{record.name}", content)
    altered = replace(record, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(DamagedSampleError, match=rf"of {URL}/train-000000\.tar is damaged \(its json has no"):
        ShardReader(open_folder(URL), [altered]).read(0)


def test_reading_in_order_fetches_the_next_shards(system, drawn_shards, cache):
    reader = ShardSet(URL).reader("train")
    reader.read(0)
    deadline = time.monotonic() + 30
    while num_copies(cache) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_maps_that_are_open_leave_room_for_other_copies(system, cache):
    shard_set = ShardSet(URL)
    records = shard_set.manifest.of_split("train")
    limited = ShardSet(URL, cache_gib=8 * max(record.num_bytes for record in records) / 2**30)
    found = limited.files.max_open(records, limit=256), shard_set.files.max_open(records, limit=256)
    assert found == (4, 256)
