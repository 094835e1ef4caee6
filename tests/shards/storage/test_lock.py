import os
import queue
import socket
import subprocess
import sys
import threading

import pytest

from shards.storage import lock
from shards.storage.lock import lock_file, sole_writer
from tests.support.repository import ROOT

HOLD = "import sys, pathlib; from shards.storage.lock import lock_file; file = lock_file(pathlib.Path(sys.argv[1])); "


@pytest.fixture
def told(monkeypatch):
    """Return a queue of the warnings of processes that wait."""
    warnings = queue.Queue()
    monkeypatch.setattr(lock.logger, "warning", lambda form, *values: warnings.put(form % values))
    return warnings


@pytest.fixture
def holder(tmp_path):
    """Run a process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD + "print('held', flush=True); sys.stdin.read()", tmp_path / ".lock"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_writer_is_told_who_the_first_is(holder, tmp_path):
    with (
        pytest.raises(BlockingIOError, match=f"^process {holder.pid} on {socket.gethostname()}$"),
        sole_writer(tmp_path, waits=False),
    ):
        pass


def test_a_killed_process_holds_no_lock(holder, tmp_path):
    holder.kill()
    holder.wait()
    with sole_writer(tmp_path, waits=False):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_second_writer_waits_for_the_first_and_is_alone_then(tmp_path, told):
    entered, leave = threading.Event(), threading.Event()

    def write_second():
        with sole_writer(tmp_path):
            entered.set()
            leave.wait(20)

    second = threading.Thread(target=write_second)
    with sole_writer(tmp_path):
        second.start()
        waits_for = told.get(timeout=20)
        assert not entered.is_set()
    assert entered.wait(20)
    with pytest.raises(BlockingIOError), sole_writer(tmp_path, waits=False):
        pass
    leave.set()
    second.join()
    assert f"{tmp_path} is being written by process {os.getpid()} on" in waits_for


def test_a_process_that_was_forked_meanwhile_holds_no_lock(tmp_path):
    read, write = os.pipe()
    with sole_writer(tmp_path):
        child = os.fork()
        if not child:
            os.read(read, 1)
            os._exit(0)
    with sole_writer(tmp_path, waits=False):
        os.write(write, b".")
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("waits", [True, False])
def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path, waits):
    with sole_writer(tmp_path / "new" / "folder", waits=waits):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_stays(tmp_path):
    with sole_writer(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_lock_names_the_process_that_it_is_held_for(tmp_path):
    with lock_file(tmp_path / "a", pid=7), pytest.raises(BlockingIOError, match="process 7 on "):
        lock_file(tmp_path / "a")
