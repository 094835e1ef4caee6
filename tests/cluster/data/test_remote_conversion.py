"""Shard sets written to URLs, by this process without Ray."""

from collections import Counter

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.output import writing_to
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import Claim, ClaimLostError
from shards.manifest import load_manifest
from shards.storage.folders import RemoteShards, open_folder
from shards.synthetic.scenes import write_scenes

URL = "memory://bucket/shards"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, num_train=40, num_val=10, seed=4, size_px=64)
    return folder


@pytest.fixture
def system():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


@pytest.fixture
def puts(monkeypatch):
    """Return the names of the uploaded files, in order."""
    names, put = [], RemoteShards.put

    def note(folder, name, content):
        names.append(name)
        put(folder, name, content)

    monkeypatch.setattr(RemoteShards, "put", note)
    return names


def plan(scenes, place, *, seed=0, samples_per_shard=20, rebuild=False):
    return plan_conversion(
        scenes,
        place,
        ConversionConfig(samples_per_shard=samples_per_shard, seed=seed, minimum_word_count=1, rebuild=rebuild),
    )


def content(system):
    return {path.removeprefix("/bucket/shards/"): system.cat_file(path) for path in system.find("/bucket/shards")}


def test_the_files_are_those_of_a_folder(scenes, system, tmp_path):
    convert(plan(scenes, tmp_path), num_workers=0)
    convert(plan(scenes, URL), num_workers=0)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert content(system) == {str(path.relative_to(tmp_path)): path.read_bytes() for path in files}


def test_records_follow_their_shards_and_the_manifest_comes_last(scenes, system, puts):
    convert(plan(scenes, URL), num_workers=0)
    shards = ["train-000000.tar", "train-000001.tar", "val-000000.tar"]
    written = [name for shard in shards for name in (shard, f"records/{shard}.json")]
    assert puts == [*written, "vocabulary.txt", "manifest.json"]


@pytest.mark.parametrize("lost", ["train-000001.tar", "records/train-000001.tar.json"])
def test_what_is_there_is_not_written_again(scenes, system, puts, lost):
    digest = convert(plan(scenes, URL), num_workers=0).digest
    system.rm(f"/bucket/shards/{lost}")
    puts.clear()
    assert convert(plan(scenes, URL), num_workers=0).digest == digest
    assert puts == ["train-000001.tar", "records/train-000001.tar.json", "vocabulary.txt", "manifest.json"]


def test_a_second_call_lists_the_target_and_asks_for_each_record_once(scenes, system, monkeypatch):
    convert(plan(scenes, URL, samples_per_shard=1), num_workers=0)
    requests = Counter()
    for kind in ("ls", "cat_file", "info"):
        monkeypatch.setattr(MemoryFileSystem, kind, counted(kind, getattr(MemoryFileSystem, kind), requests))
    assert len(plan(scenes, URL, samples_per_shard=1).finished) == 50
    assert requests == {"ls": 2, "cat_file": 50 + 1}  # the manifest: its existence, and its content


def test_a_first_call_asks_for_no_record(scenes, system, monkeypatch):
    requests = Counter()
    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted("cat_file", MemoryFileSystem.cat_file, requests))
    assert (plan(scenes, URL, samples_per_shard=1).finished, requests) == ((), {})


def counted(kind, method, requests):
    def count_and_call(*arguments, **options):
        requests[kind] += 1
        return method(*arguments, **options)

    return count_and_call


def test_what_another_plan_left_unfinished_goes_and_files_of_others_stay(scenes, system):
    convert(plan(scenes, URL, samples_per_shard=7), num_workers=0)
    system.rm("/bucket/shards/manifest.json")
    system.pipe_file("/bucket/shards/letter.txt", b"")
    names = {shard.name for shard in convert(plan(scenes, URL), num_workers=0).shards}
    records = {f"records/{name}.json" for name in names}
    assert set(content(system)) == names | records | {"letter.txt", "vocabulary.txt", "manifest.json"}


def test_another_finished_set_is_not_written_over(scenes, system):
    convert(plan(scenes, URL), num_workers=0)
    with pytest.raises(ValueError, match="memory://bucket/shards has a finished shard set from other images"):
        plan(scenes, URL, seed=1)
    assert load_manifest(open_folder(URL)).seed == 0


def test_a_rebuild_whose_claim_was_lost_leaves_the_set_of_its_successor(scenes, system, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    convert(plan(scenes, URL), num_workers=0)
    before = content(system)
    with writing_to(URL):
        planned = plan(scenes, URL, samples_per_shard=50, rebuild=True)
        Claim(CheckpointStore(f"{URL}/.writer"), "other", "process 1 on east").take(by_force=True)
        with pytest.raises(ClaimLostError, match="belong to process 1 on east"):
            convert(planned, num_workers=0)
    assert {name: stored for name, stored in content(system).items() if not name.startswith(".writer/")} == before
