import os
import pickle
import signal
import subprocess
import sys
import time

import fsspec
import pytest

from cluster.runs.checkpoint_store import CheckpointStore
from tests.support.repository import ROOT
from tests.support.stored_files import FILES, contents, fill

pytestmark = pytest.mark.cluster


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def url(request, tmp_path):
    """Return an empty location of each kind."""
    folder = tmp_path / "a run"
    if request.param in ("memory", "s3"):
        return request.getfixturevalue(f"{request.param}_url")
    return {"folder": str(folder), "file": folder.as_uri()}[request.param]


@pytest.fixture
def store(url):
    return CheckpointStore(url)


def other_process(code, url):
    """Run code in a new process, with ``store`` and ``fill``."""
    setup = (
        "import os; from tests.support.stored_files import fill; "
        f"from cluster.runs.checkpoint_store import CheckpointStore as S; store = S({url!r})"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.Popen([sys.executable, "-c", f"{setup}; {code}"], env=os.environ | {"PYTHONPATH": path})


def test_what_is_written_is_fetched(store, tmp_path):
    store.write("c", fill)
    assert contents(store.fetch("c", tmp_path / "into")) == FILES


def test_a_local_checkpoint_is_fetched_without_a_copy(tmp_path):
    store = CheckpointStore(str(tmp_path))
    store.write("c", fill)
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


def test_a_taken_name_is_not_written_over(store):
    store.write("c", fill)
    with pytest.raises(FileExistsError, match="c"):
        store.write("c", fill)


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


def test_the_object_that_shows_a_folder_is_no_file_of_the_checkpoint(s3_url, tmp_path):
    store = CheckpointStore(s3_url)
    for path in ("runs/r/", "runs/r/c/"):
        fsspec.filesystem("s3", skip_instance_cache=True).pipe_file(f"bucket/{path}", b"")
    store.write("c", fill)
    assert contents(store.fetch("c", tmp_path)) == FILES
    assert store.names() == ["c"]


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


def test_a_missing_bucket_is_named_and_not_made(s3_environment):
    store = CheckpointStore("s3://missing/r")
    with pytest.raises(FileNotFoundError, match=r"s3://missing/r: .*bucket does not exist; check the address and"):
        store.write("c", fill)
    assert not fsspec.filesystem("s3", skip_instance_cache=True).exists("missing")
