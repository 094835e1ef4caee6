"""Files are complete or absent after an error, a full disk, or a kill during the write."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shards.storage.files import create_file, full_disk_names, remove_torn, replace_file, replacing, sha256_of

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_with_all_of_its_content(tmp_path):
    with replacing(tmp_path / "new") as file:
        file.write(b"first ")
        file.write(b"second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"new": b"first second"}


def test_folders_on_the_way_are_made(tmp_path):
    replace_file(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"


def test_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    replace_file(path, b"old")

    def write_half():
        with replacing(path) as file:
            file.write(b"half of the new")
            raise error("in the middle")

    with pytest.raises(error, match="in the middle"):
        write_half()
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["file"])


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "file") as first, replacing(tmp_path / "file") as second:
        first.write(b"1" * 9)
        second.write(b"2")
    assert ((tmp_path / "file").read_bytes(), names(tmp_path)) == (b"1" * 9, ["file"])


def test_content_is_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    events, sync = [], os.fsync

    def noted_sync(descriptor):
        synced = os.fstat(descriptor)
        events.append(("folder" if stat.S_ISDIR(synced.st_mode) else synced.st_size, names(tmp_path) == ["file"]))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_sync)
    replace_file(tmp_path / "file", b"12345")
    assert events == [(5, False), ("folder", True)]


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from shards.storage.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.faults
def test_a_killed_writer_leaves_the_old_content_and_a_hidden_file(tmp_path):
    replace_file(tmp_path / "file", b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, tmp_path / "file"], check=False)
    left = [path for path in tmp_path.iterdir() if path.name != "file"]
    assert (killed.returncode, (tmp_path / "file").read_bytes()) == (-signal.SIGKILL, b"old")
    assert [(path.match(".file.*.tmp"), path.read_bytes()) for path in left] == [(True, b"half")]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    names = (".a.jsonl.1234abcd.tmp", ".run.json.1234abcd.tmp", "a.jsonl", ".b.jsonl")
    for name in names:
        (tmp_path / name).touch()
    remove_torn(tmp_path, "*.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])


def test_of_two_who_create_a_file_one_succeeds(tmp_path):
    create_file(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "file", b"second")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_a_file_whose_creation_was_answered_twice_is_ones_own(tmp_path, monkeypatch):
    link = Path.hardlink_to

    def twice(path, target):
        link(path, target)
        link(path, target)

    monkeypatch.setattr(Path, "hardlink_to", twice)
    create_file(tmp_path / "file", b"own")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"own"]


def test_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == SHA256_OF_ABC


@pytest.mark.parametrize("write", [replacing, full_disk_names])
def test_a_full_disk_is_told_with_the_file(tmp_path, write):
    with pytest.raises(OSError, match=r"No space left on device: '.*/a'"), write(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
