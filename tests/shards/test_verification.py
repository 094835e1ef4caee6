"""Missing and changed shards are found, and unchanged shards are not hashed at every start."""

import logging
import os
import subprocess
import sys

import fsspec
import pytest

import shards.verification
from shards.storage import digest_cache, files
from shards.storage.digest_cache import DigestCache
from shards.storage.folders import open_folder
from shards.verification import find_faults, verify_shards
from shards.writer import write_samples, write_shard
from tests.support.repository import ROOT
from tests.support.shard_plans import deal, seven_images
from tests.support.unprivileged import unprivileged


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settled(three_shards):
    """Return the folder and the records of shards that were written a minute ago."""
    folder, manifest = three_shards
    for shard in manifest.shards:
        written_ns = (folder / shard.name).stat().st_mtime_ns - 60_000_000_000
        os.utime(folder / shard.name, ns=(written_ns, written_ns))
    return folder, manifest.shards


@pytest.fixture
def hashed(monkeypatch):
    """Return the names of the files that are hashed."""
    names = []

    def sha256_of(path):
        names.append(path.name)
        return files.sha256_of(path)

    monkeypatch.setattr(digest_cache, "sha256_of", sha256_of)
    return names


def alter(path):
    """Change a byte and keep the size."""
    path.write_bytes(b"S" + path.read_bytes()[1:])


@pytest.mark.parametrize("read_all", [True, False])
def test_whole_shards_pass(three_shards, read_all):
    folder, manifest = three_shards
    verify_shards(folder, manifest.shards, read_all=read_all)


@pytest.mark.parametrize("read_all", [True, False])
def test_a_missing_shard_is_named(three_shards, read_all):
    folder, manifest = three_shards
    (folder / "train-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 3 shards, first train-000001.tar; run captioning convert"):
        verify_shards(folder, manifest.shards, read_all=read_all)


@pytest.mark.parametrize("content", [b"secon", b"", b"seconds"])
@pytest.mark.parametrize("read_all", [True, False])
def test_a_shard_of_another_size_is_named(three_shards, content, read_all):
    folder, manifest = three_shards
    (folder / "train-000001.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 3 shards differ from the manifest, first train-000001.tar; run"):
        verify_shards(folder, manifest.shards, read_all=read_all)


def test_another_byte_is_noticed_if_all_are_read(three_shards):
    folder, manifest = three_shards
    for name in ("train-000001.tar", "val-000000.tar"):
        (folder / name).write_bytes(b"S" + (folder / name).read_bytes()[1:])
    verify_shards(folder, manifest.shards, read_all=False)
    with pytest.raises(ValueError, match=r"2 of 3 shards differ from the manifest, first train-000001.tar"):
        verify_shards(folder, manifest.shards)


def test_a_split_can_be_verified_alone(three_shards):
    folder, manifest = three_shards
    (folder / "val-000000.tar").unlink()
    verify_shards(folder, manifest.of_split("train"))


def test_shards_are_read_at_the_first_check_alone(settled, hashed):
    for _ in range(3):
        verify_shards(*settled)
    assert sorted(hashed) == [shard.name for shard in settled[1]]


def test_another_process_reads_none_of_them_again(settled, hashed):
    folder, _ = settled
    code = "import sys; from pathlib import Path; from shards.manifest import load_manifest; " + (
        "from shards.verification import verify_shards; folder = Path(sys.argv[1]); "
        "verify_shards(folder, load_manifest(folder).shards)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True)
    verify_shards(*settled)
    assert hashed == []


def test_a_shard_that_was_written_again_is_read_again(settled, hashed):
    folder, records = settled
    verify_shards(*settled)
    hashed.clear()
    alter(folder / records[1].name)
    with pytest.raises(ValueError, match=r"1 of 3 shards differ from the manifest, first train-000001\.tar"):
        verify_shards(*settled)
    assert hashed == ["train-000001.tar"]


def test_a_shard_in_the_place_of_another_with_its_size_and_time_is_read_again(settled):
    folder, records = settled
    verify_shards(*settled)
    path = folder / records[0].name
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    other = folder / "other"
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=times)
    other.replace(path)
    with pytest.raises(ValueError, match="1 of 3 shards differ"):
        verify_shards(*settled)


def test_an_altered_shard_is_refused_from_memory_too(settled, hashed):
    folder, records = settled
    path = folder / records[0].name
    alter(path)
    os.utime(path, (0, 0))
    for _ in range(2):
        with pytest.raises(ValueError, match="1 of 3 shards differ"):
            verify_shards(*settled)
    assert len(hashed) == 3


def test_shards_that_were_just_written_are_read_again(three_shards, hashed):
    folder, manifest = three_shards
    for _ in range(2):
        verify_shards(folder, manifest.shards)
    assert len(hashed) == 6


def test_a_missing_shard_is_named_before_any_is_read(settled, hashed):
    folder, records = settled
    (folder / records[2].name).unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 3 shards"):
        verify_shards(*settled)
    assert hashed == []


def test_what_was_read_before_an_interrupt_is_remembered(settled, hashed, monkeypatch):
    compute = DigestCache.compute

    def compute_or_stop(cache, name):
        if name.startswith("val"):
            raise KeyboardInterrupt
        return compute(cache, name)

    with monkeypatch.context() as patch:
        patch.setattr(DigestCache, "compute", compute_or_stop)
        with pytest.raises(KeyboardInterrupt):
            verify_shards(*settled)
    hashed.clear()
    verify_shards(*settled)
    assert hashed == ["val-000000.tar"]


def test_a_long_check_tells_how_far_it_is(settled, monkeypatch, caplog, cache):
    monkeypatch.setattr(shards.verification, "_FIRST_LINE_SECONDS", 0)
    with caplog.at_level(logging.INFO):
        verify_shards(*settled)
    assert f"verifying {settled[0]}: 0 of 3 shards, 0.0 of 0.0 GiB" in caplog.text


def test_at_a_url_sizes_are_compared(settled):
    folder, records = settled
    system = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        system.pipe_file(f"/verified/{path.name}", path.read_bytes())
    try:
        verify_shards(open_folder("memory://verified"), records)
        system.pipe_file("/verified/val-000000.tar", b"")
        with pytest.raises(ValueError, match=r"memory://verified: 1 of 3 shards differ .* first val-000000.tar"):
            verify_shards(open_folder("memory://verified"), records)
    finally:
        system.rm("/verified", recursive=True)


def check(jpeg):
    if jpeg.startswith(b"broken"):
        raise ValueError("it does not decode")


def test_each_damaged_shard_is_named_with_what_is_wrong(tmp_path):
    plans = deal(seven_images(tmp_path / "coco"), samples_per_shard=1)[:5]
    folder = tmp_path / "shards"
    records = [write_shard(plan, folder) for plan in plans]
    content = (folder / plans[1].name).read_bytes()
    (folder / plans[0].name).unlink()
    (folder / plans[1].name).write_bytes(content[:-1])
    content = bytearray((folder / plans[2].name).read_bytes())
    content[600] ^= 1
    (folder / plans[2].name).write_bytes(content)
    done = []
    faults = find_faults(folder, records, check_image=check, progress=done.append)
    assert {name: reason.split(" ")[0] for name, (reason,) in faults.items()} == {
        plans[0].name: "is",
        plans[1].name: "has",
        plans[2].name: "has",
    }
    assert done == [1, 2, 3, 4, 5]


FORBIDDEN = """
import sys
from pathlib import Path
from shards.manifest import load_manifest
from shards.sources.records import open_table
from shards.sources.recognition import SourceOptions, read_source
from shards.tars.patterns import find_tars
from shards.verification import find_faults
shard_set, closed, table = map(Path, sys.argv[1:])
calls = [
    lambda: find_faults(shard_set, load_manifest(shard_set).shards),
    lambda: read_source(closed, SourceOptions(), ()),
    lambda: find_tars([str(closed)]),
    lambda: open_table(table),
]
for call in calls:
    try:
        print(call())
    except PermissionError as error:
        print(error.filename)
"""


def test_what_may_not_be_read_is_neither_damaged_nor_empty(three_shards, tmp_path):
    folder, manifest = three_shards
    (shard := folder / manifest.shards[0].name).chmod(0o000)
    (closed := tmp_path / "closed").mkdir(mode=0o000)
    (table := tmp_path / "captions.parquet").touch(mode=0o000)
    try:
        told = unprivileged(FORBIDDEN, folder, closed, table)
    finally:
        closed.chmod(0o755)
    assert told == [str(shard), str(closed), str(closed), str(table)]


def test_a_sample_that_was_stored_broken_is_named(tmp_path):
    (plan,) = deal(seven_images(tmp_path / "coco"), samples_per_shard=7)
    samples = [
        {"__key__": "a", "jpg": b"broken", "json": b'{"image_id": 1, "captions": ["A."]}'},
        {"__key__": "b", "jpg": b"sound", "json": b'{"image_id": 2, "captions": [" "]}'},
        {"__key__": "c", "jpg": b"sound"},
    ]
    record = write_samples(samples, plan, tmp_path / "shards", plan_digest="", set_aside=())
    assert find_faults(tmp_path / "shards", [record]) == {}
    faults = find_faults(tmp_path / "shards", [record], check_image=check)
    assert faults == {
        plan.name: [
            "sample a: it does not decode",
            "sample b: its captions are empty",
            "sample c: it has no json",
        ]
    }
