"""A folder at a URL: its listing, and the errors of one that does not answer."""

import pickle

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from shards.storage.remote import RemoteFolder

URL = "memory://bucket/set"


@pytest.fixture
def folder(memory, waits):
    return RemoteFolder(URL, waits.append)


def test_entries_are_files_and_folders_by_name(folder):
    folder.put("a.tar", b"abc")
    folder.put("records/a.json", b"{}")
    assert (folder.list_entries(), folder.sizes()) == ({"a.tar": False, "records": True}, {"a.tar": 3})
    assert folder.sizes("records") == {"a.json": 2}


def test_what_is_not_there_is_empty_and_need_not_be_removed(folder, memory):
    memory.pipe_file("/other", b"")
    assert (folder.list_entries(), folder.sizes("records")) == ({}, {})
    folder.remove_file("a.tar")
    folder.remove_folder("records")


def test_a_file_comes_back_as_it_was_put(folder, tmp_path):
    (tmp_path / "local").write_bytes(b"content")
    folder.put("a", tmp_path / "local")
    folder.get("a", tmp_path / "again")
    assert (folder.read("a"), (tmp_path / "again").read_bytes()) == (b"content", b"content")


def test_what_was_removed_is_gone(folder):
    for name in ("a", "b/c", "b/d"):
        folder.put(name, b"")
    folder.remove_file("a")
    folder.remove_folder("b")
    assert folder.list_entries() == {}


def test_a_pickled_folder_is_the_same(folder, memory):
    memory.pipe_file("/bucket/set/a", b"content")
    again = pickle.loads(pickle.dumps(RemoteFolder(URL, print)))
    assert (str(again), again.read("a")) == (URL, b"content")


def test_a_refusal_is_raised_at_once(folder, waits, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("403")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(PermissionError, match="memory://bucket/set: PermissionError: 403; check the address"):
        folder.read("a")
    assert waits == []


def test_a_failure_that_stays_is_raised_without_credentials_of_the_librarys_text(folder, waits, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no route to http://me:secret@host/a?X-Amz-Signature=secret")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(
        ConnectionError, match=r"^memory://bucket/set failed 4 times, .* no route to http://host/a\?X"
    ) as told:
        folder.read("a")
    assert (waits, "secret" in f"{told.value}") == ([1.0, 2.0, 4.0], False)


def test_credentials_in_the_address_are_refused():
    with pytest.raises(ValueError, match="the address memory://host/set contains credentials"):
        RemoteFolder("memory://me:secret@host/set", print)


def test_a_scheme_that_nothing_reaches_is_refused():
    with pytest.raises(ValueError, match=r"nowhere://bucket cannot be opened \(.*\); install the package for its"):
        RemoteFolder("nowhere://bucket", print)
