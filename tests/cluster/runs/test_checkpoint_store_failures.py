import shutil
import sys
import tempfile

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cluster.runs.checkpoint_store import CheckpointStore
from shards.storage.remote import RemoteFolder
from tests.support.case_table import each_case
from tests.support.stored_files import FILES, contents, fill


@pytest.fixture
def waits():
    """Return the waiting times between retries, in seconds."""
    return []


@pytest.fixture
def memory_store(memory_url, waits):
    return CheckpointStore(memory_url, sleep=waits.append)


def failing(error, times):
    """Return a method that raises an error a number of times, and then does nothing."""
    errors = iter([error] * times)

    def fail(*arguments, **options):
        for left in errors:
            raise left

    return fail


def test_a_removal_that_breaks_off_leaves_no_checkpoint(memory_store, tmp_path, monkeypatch):
    memory_store.write("c", fill)
    monkeypatch.setattr(RemoteFolder, "remove_folder", lambda *arguments: None)
    memory_store.remove("c")
    with pytest.raises(FileNotFoundError, match=r"r/c is no checkpoint: it has no checkpoint\.json; use another one"):
        memory_store.fetch("c", tmp_path)


def test_a_local_removal_that_breaks_off_leaves_no_checkpoint(tmp_path, monkeypatch):
    store = CheckpointStore(str(tmp_path))
    store.write("c", fill)
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    store.remove("c")
    assert sorted(contents(tmp_path / "c")) == ["config.yaml", "model.safetensors"]


def test_a_taken_name_is_named(memory_store):
    memory_store.write("c", fill)
    with pytest.raises(FileExistsError, match="memory://bucket/runs/r/c exists already; write the checkpoint under"):
        memory_store.write("c", fill)


def test_the_description_is_put_last(memory_store, monkeypatch):
    names = []
    monkeypatch.setattr(RemoteFolder, "put", lambda place, name, content: names.append(name))
    memory_store.write("c", fill)
    assert names == ["c/config.yaml", "c/model.safetensors", "c/checkpoint.json"]


def test_a_copy_that_broke_off_is_fetched_anew(memory_store, tmp_path):
    memory_store.write("c", fill)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "left").touch()
    assert contents(memory_store.fetch("c", tmp_path)) == FILES


@pytest.mark.parametrize("is_broken", [False, True])
def test_no_temporary_folder_stays(memory_store, tmp_path, monkeypatch, is_broken):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if is_broken:
        monkeypatch.setattr(MemoryFileSystem, "put_file", failing(PermissionError("no"), 1))
        with pytest.raises(PermissionError, match="memory://bucket/runs/r: PermissionError: no; check the address and"):
            memory_store.write("c", fill)
    else:
        memory_store.write("c", fill)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_that_passes_is_waited_for(memory_store, waits, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", failing(OSError("slow down"), 2))
        memory_store.put_file("run.json", b"{}")
    assert waits == [1.0, 2.0]


def test_a_failure_that_stays_is_raised_in_one_line(memory_store, waits, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", failing(RuntimeError("broken\npipe"), 9))
    message = (
        "memory://bucket/runs/r failed 4 times, the last time with RuntimeError: broken pipe; check the address, the"
    )
    with pytest.raises(ConnectionError, match=message):
        memory_store.put_file("run.json", b"{}")
    assert waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("error", [PermissionError("no"), FileNotFoundError("no")])
def test_what_waiting_does_not_mend_is_not_tried_again(memory_store, waits, monkeypatch, error):
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", failing(error, 1))
    with pytest.raises(type(error), match=rf"^memory://bucket/runs/r: {type(error).__name__}: no; check the address"):
        memory_store.put_file("run.json", b"{}")
    assert waits == []


def test_a_server_that_does_not_answer_is_named(waits):
    store = CheckpointStore("ftp://127.0.0.1:1/r", sleep=waits.append)
    with pytest.raises(ConnectionError, match=r"^ftp://127\.0\.0\.1:1/r failed 4 times, the last time with Conn"):
        store.names()


@each_case("location", ["runs/r", "file://runs/r", "file://localhosts/r"])
def test_a_relative_path_is_refused(location):
    with pytest.raises(
        ValueError, match=f"{location} is a relative path, and workers on other nodes run in other folders"
    ):
        CheckpointStore(location)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match=r"s4://b/r cannot be opened \(Protocol not known: s4\); install the package"):
        CheckpointStore("s4://b/r")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"gs://b/r cannot be opened \(Please install gcsfs .*\); install the"):
        CheckpointStore("gs://b/r")
