import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
import pytest
from buckets import s3_server
from fsspec.implementations.memory import MemoryFileSystem

from cluster.store import CheckpointStore
from shards.remote import RemoteFolder

pytestmark = pytest.mark.cluster

FILES = {"checkpoint.json": b"{}", "config.yaml": b"", "model.safetensors": bytes(2**20)}


def fill(folder):
    """Write what stands for a checkpoint."""
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def s3_variables():
    with s3_server() as variables:
        yield variables


@pytest.fixture
def s3_environment(s3_variables, monkeypatch):
    for name, value in s3_variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_url(s3_environment):
    """Return an empty folder in a bucket."""
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("bucket")
    yield "s3://bucket/runs/r"
    system.rm("bucket", recursive=True)


@pytest.fixture
def memory_url():
    yield "memory://bucket/runs/r"
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def url(request, tmp_path):
    """Return an empty place of every kind."""
    folder = tmp_path / "a run"
    if request.param in ("memory", "s3"):
        return request.getfixturevalue(f"{request.param}_url")
    return {"folder": str(folder), "file": folder.as_uri()}[request.param]


@pytest.fixture
def store(url):
    return CheckpointStore(url)


@pytest.fixture
def waits():
    """Return the seconds that were waited between attempts."""
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


def other_process(code, url):
    """Run code in a new process, with ``store`` and ``fill``."""
    here = Path(__file__).parent
    setup = (
        f"import os; from test_store import fill; from cluster.store import CheckpointStore as S; store = S({url!r})"
    )
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    return subprocess.Popen([sys.executable, "-c", f"{setup}; {code}"], env=os.environ | {"PYTHONPATH": path})


def test_what_is_written_is_fetched(store, tmp_path):
    store.write("c", fill)
    assert contents(store.fetch("c", tmp_path / "into")) == FILES


def test_a_local_checkpoint_is_fetched_without_a_copy(tmp_path):
    store = CheckpointStore(str(tmp_path))
    assert store.is_local
    assert store.fetch("c", tmp_path / "into") == tmp_path / "c"


def test_a_file_url_is_the_folder(tmp_path):
    folder = tmp_path / "a b%c"
    CheckpointStore(folder.as_uri()).write("c", fill)
    CheckpointStore(f"file://localhost{tmp_path}").write("d", fill)
    assert contents(folder / "c") == contents(tmp_path / "d") == FILES


def test_a_place_where_nothing_was_written_has_no_checkpoints(store):
    assert store.names() == []


def test_whole_and_broken_checkpoints_are_listed_and_files_are_not(store):
    store.write("whole", fill)
    store.put_file("broken/model.safetensors", b"")
    store.put_file("run.json", b"{}")
    assert store.names() == ["broken", "whole"]


def test_a_removed_checkpoint_is_gone_and_others_are_not(store):
    for name in ("step-1", "step-10"):
        store.write(name, fill)
    store.remove("step-1")
    assert store.names() == ["step-10"]


def test_removing_what_is_not_there_does_nothing(store):
    store.write("c", fill)
    store.remove("d")
    assert store.names() == ["c"]


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


def test_a_taken_name_is_not_written_over(store):
    store.write("c", fill)
    with pytest.raises(FileExistsError, match="c"):
        store.write("c", fill)


def test_a_taken_name_is_named(memory_store):
    memory_store.write("c", fill)
    with pytest.raises(FileExistsError, match="memory://bucket/runs/r/c exists already; write the checkpoint under"):
        memory_store.write("c", fill)


def test_a_small_file_is_replaced(store):
    for content in (b"old", b"new"):
        store.put_file("run.json", content)
    assert store.get_file("run.json") == b"new"


def test_a_small_file_that_is_not_there_is_none(store):
    assert store.get_file("run.json") is None


def test_a_pickled_store_is_of_the_same_place(store):
    store.write("c", fill)
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.names(), str(copy)) == (["c"], str(store))


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


def test_the_object_that_shows_a_folder_is_no_file_of_the_checkpoint(s3_url, tmp_path):
    store = CheckpointStore(s3_url)
    for path in ("runs/r/", "runs/r/c/"):
        fsspec.filesystem("s3", skip_instance_cache=True).pipe_file(f"bucket/{path}", b"")
    store.write("c", fill)
    assert contents(store.fetch("c", tmp_path)) == FILES
    assert store.names() == ["c"]


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


def test_what_another_process_wrote_is_seen(s3_url, tmp_path):
    store = CheckpointStore(s3_url)
    store.write("c", fill)
    assert store.names() == ["c"]
    assert other_process("store.write('d', fill); store.remove('c'); store.put_file('f', b'1')", s3_url).wait() == 0
    assert (store.names(), store.get_file("f")) == (["d"], b"1")
    assert contents(store.fetch("d", tmp_path)) == FILES


def test_a_forked_process_has_connections_of_its_own(s3_url):
    fork = "store.names(); child = os.fork(); store.write('parent' if child else 'child', fill)"
    assert other_process(f"{fork}; child and os.waitpid(child, 0)", s3_url).wait() == 0
    assert CheckpointStore(s3_url).names() == ["child", "parent"]


@pytest.mark.faults
def test_a_process_killed_while_it_writes_leaves_no_checkpoint(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    stuck = "(fill(folder), (folder / 'm').unlink(missing_ok=True), os.mkfifo(folder / 'm'))"  # no one writes into it
    process = other_process(f"store.write('c', lambda folder: {stuck})", s3_url)
    store = CheckpointStore(s3_url)
    while not store.names():  # config.yaml is there, m is being put
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.names() == ["c"]
    with pytest.raises(FileNotFoundError, match=r"c is no checkpoint: it has no checkpoint\.json"):
        store.fetch("c", tmp_path)


def test_a_failure_that_passes_is_waited_for(memory_store, waits, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", failing(OSError("slow down"), 2))
        memory_store.put_file("run.json", b"{}")
    assert waits == [1.0, 2.0]


def test_a_failure_that_stays_is_raised_in_one_line(memory_store, waits, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", failing(RuntimeError("broken\npipe"), 9))
    message = (
        "memory://bucket/runs/r failed 4 times, at last with RuntimeError: broken pipe; check the address, the network"
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


def test_a_server_that_does_not_answer_is_named_without_credentials(waits):
    store = CheckpointStore("ftp://user:p%40ss@127.0.0.1:1/r", sleep=waits.append)
    with pytest.raises(ConnectionError, match=r"^ftp://127\.0\.0\.1:1/r failed 4 times, at last with Connection"):
        store.names()


def test_credentials_are_in_no_message(memory_url, monkeypatch):
    store = CheckpointStore("memory://user:p%40ss@host/r", sleep=lambda seconds: None)
    text = "user:p%40ss, p@ss at http://other:word@host refused"
    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing(OSError(text), 9))
    with pytest.raises(
        ConnectionError, match=r"^memory://host/r .* OSError: \*\*\*, \*\*\* at http://host refused; check"
    ):
        store.get_file("run.json")
    assert str(store) == "memory://host/r"


def test_a_missing_bucket_is_named_and_not_made(s3_environment):
    store = CheckpointStore("s3://missing/r")
    with pytest.raises(FileNotFoundError, match=r"s3://missing/r: .*bucket does not exist; check the address and"):
        store.write("c", fill)
    assert not fsspec.filesystem("s3", skip_instance_cache=True).exists("missing")


@pytest.mark.parametrize("location", ["runs/r", "file://runs/r", "file://localhosts/r"])
def test_a_relative_path_is_refused(location):
    with pytest.raises(ValueError, match=f"{location} is no absolute path; other nodes run in other folders"):
        CheckpointStore(location)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(
        ValueError, match=r"s4://b/r is out of reach \(Protocol not known: s4\); install what its scheme"
    ):
        CheckpointStore("s4://b/r")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"gs://b/r is out of reach \(Please install gcsfs .*\); install what its"):
        CheckpointStore("gs://user:word@b/r")
