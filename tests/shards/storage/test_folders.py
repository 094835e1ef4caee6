import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from shards.storage.folders import RemoteShards, open_folder
from tests.support.repository import ROOT

KIB = 2**10
NAMES = ("a.tar", "b.tar", "c.tar", "d.tar")


class Record(NamedTuple):
    name: str
    num_bytes: int
    sha256: str


def content_of(name):
    """Return 100 KiB that differ for each name."""
    return hashlib.sha256(name.encode()).digest() * 32 * 100


def record_of(name):
    content = content_of(name)
    return Record(name, len(content), hashlib.sha256(content).hexdigest())


RECORDS = [record_of(name) for name in NAMES]
A, B, C, D = RECORDS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a set, which tests access by URLs."""
    (tmp_path / "a set").mkdir()
    for name in NAMES:
        (tmp_path / "a set" / name).write_bytes(content_of(name))
    return tmp_path / "a set"


@pytest.fixture
def memory(memory):
    """Return a file system with the set in it, at memory://bucket/set."""
    for name in NAMES:
        memory.pipe_file(f"/bucket/set/{name}", content_of(name))
    return memory


@pytest.fixture
def shards(memory, waits):
    return RemoteShards("memory://bucket/set", sleep=waits.append)


def kept(cache):
    """Return the names of the cached files, and of unexpected files in the cache."""
    names = {record.sha256: record.name for record in RECORDS}
    return sorted(names.get(path.name, path.name) for path in cache.glob("*") if path.is_file())


def read(shards, record):
    with shards.open(record) as file:
        return file.read()


def other_process(folder, tmp_path, code, *, seconds):
    """Run code in a new process, with the set as ``shards``; each fetch of a file takes the given number of seconds."""
    url = f"watched://{folder}"
    setup = (
        "import tests.support.watched_filesystem; from tests.shards.storage import test_folders as t; "
        f"shards = t.RemoteShards({url!r})"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "WATCHED_LOG": str(tmp_path / "log"),
        "WATCHED_SECONDS": str(seconds),
    }
    return subprocess.Popen([sys.executable, "-c", f"{setup}; {code}"], env=environment)


def wait_for(condition, *, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_file_at_a_url_is_read_from_its_copy(folder, memory, cache, scheme):
    shards = RemoteShards({"file": f"file://{folder}", "memory": "memory://bucket/set"}[scheme])
    assert (read(shards, A), kept(cache)) == (content_of("a.tar"), ["a.tar"])


def test_a_copy_is_not_fetched_again_and_serves_every_set_that_holds_it(shards, memory):
    read(shards, A)
    memory.rm("/bucket/set/a.tar")
    assert read(RemoteShards("memory://bucket/other"), A._replace(name="z.tar")) == content_of("a.tar")


def test_a_pickled_set_is_the_same(shards):
    copy = pickle.loads(pickle.dumps(RemoteShards("memory://bucket/set/", cache_gib=3)))
    assert (str(copy), copy.name, copy.cache_gib, read(copy, B)) == (str(shards), "set", 3, content_of("b.tar"))


def test_processes_that_want_one_file_fetch_it_once(folder, tmp_path):
    code = "assert t.read(shards, t.A) == t.content_of('a.tar')"
    processes = [other_process(folder, tmp_path, code, seconds=0.5) for _ in range(2)]
    assert ([process.wait() for process in processes], (tmp_path / "log").read_text()) == ([0] * 2, "a.tar\n")


@pytest.mark.faults
def test_a_process_killed_while_it_fetches_leaves_nothing_in_the_way(folder, tmp_path, cache):
    process = other_process(folder, tmp_path, "t.read(shards, t.A)", seconds=1000)
    part = cache / f"{A.sha256}.part"
    wait_for(lambda: part.exists() and part.stat().st_size)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert kept(cache) == [part.name]
    assert (read(RemoteShards(f"file://{folder}"), A), kept(cache)) == (content_of("a.tar"), ["a.tar"])


def test_a_copy_that_another_process_has_open_stays(folder, tmp_path, cache):
    code = "file = shards.open(t.A); print('open', file=open(f'{shards}'[10:] + '/open', 'w')); t.time.sleep(1000)"
    process = other_process(folder, tmp_path, code, seconds=0)
    try:
        wait_for((folder / "open").exists)
        limited = RemoteShards(f"file://{folder}", cache_gib=A.num_bytes * 1.5 / 2**30)
        read(limited, B)
        assert kept(cache) == ["a.tar", "b.tar"]
    finally:
        process.kill()
        process.wait()
    read(limited, C)
    assert kept(cache) == ["c.tar"]


def test_an_altered_file_is_named_and_no_copy_stays(shards, memory, cache):
    memory.pipe_file("/bucket/set/a.tar", bytes(A.num_bytes))
    message = rf"^memory://bucket/set/a\.tar has the sha256 \w{{12}}, but its record says {A.sha256[:12]}, also"
    with pytest.raises(ValueError, match=message):
        shards.open(A)
    assert kept(cache) == []


def test_a_failure_that_passes_is_waited_for(shards, waits, monkeypatch):
    whole, errors = MemoryFileSystem.get_file, iter([OSError("slow down")] * 2)

    def fail_twice(system, path, target, **options):
        for error in errors:
            raise error
        whole(system, path, target, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", fail_twice)
    assert (read(shards, A), waits) == (content_of("a.tar"), [1.0, 2.0])


def test_a_failure_that_stays_is_raised(shards, waits, cache, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("broken pipe")

    monkeypatch.setattr(MemoryFileSystem, "get_file", fail)
    with pytest.raises(ConnectionError, match="memory://bucket/set failed 4 times, the last time with OSError: broken"):
        shards.open(A)
    assert (waits, kept(cache)) == ([1.0, 2.0, 4.0], [])


def test_a_file_that_is_not_there_is_named(shards):
    with pytest.raises(FileNotFoundError, match=r"memory://bucket/set: .*z\.tar; check the address"):
        shards.open(A._replace(name="z.tar", sha256="0" * 64))


def test_credentials_in_a_url_are_refused():
    with pytest.raises(ValueError, match=r"^the address ftp://host/set contains credentials"):
        RemoteShards("ftp://me:secret@host/set")


def test_sizes_come_from_a_listing(shards, memory):
    memory.pipe_file("/bucket/set/records/a.json", b"{}")
    assert shards.sizes() == {record.name: record.num_bytes for record in RECORDS}


def test_what_is_fetched_ahead_needs_no_fetching(shards, memory, cache):
    shards.prefetch(RECORDS)
    wait_for(lambda: kept(cache) == list(NAMES))
    memory.rm("/bucket/set", recursive=True)
    assert [read(shards, record) for record in RECORDS] == [content_of(name) for name in NAMES]


def test_what_cannot_be_fetched_ahead_is_told_and_stops_nothing(shards, cache, caplog):
    shards.prefetch([A._replace(name="z.tar", sha256="0" * 64), B])
    wait_for(lambda: "prefetch failed: memory://bucket/set: FileNotFoundError" in caplog.text)
    wait_for(lambda: kept(cache) == ["b.tar"])


def test_a_forked_process_fetches_ahead_with_threads_of_its_own(folder, tmp_path, cache):
    fork = "shards.prefetch([t.A]); child = t.os.fork(); shards.prefetch([t.A, t.B if child else t.C])"
    wait = "t.wait_for(lambda: t.kept(t.open_folder(t.os.environ['CAPTIONING_CACHE'])) == ['a.tar', 'b.tar', 'c.tar'])"
    assert other_process(folder, tmp_path, f"{fork}; {wait}; child and t.os.waitpid(child, 0)", seconds=0.2).wait() == 0
    assert kept(cache) == ["a.tar", "b.tar", "c.tar"]


@pytest.mark.parametrize(("form", "is_url"), [("{}", False), ("file://{}", False), ("memory://{}", True)])
def test_folders_and_urls_are_told_apart(tmp_path, form, is_url):
    opened = open_folder(form.format(tmp_path), cache_gib=1)
    assert isinstance(opened, RemoteShards) if is_url else opened == tmp_path
    assert open_folder(opened) is opened
