"""Digests are remembered while files are unchanged, even if the file that stores them is damaged."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shards.storage import digest_cache
from shards.storage.digest_cache import DigestCache


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two files, a minute old."""
    (tmp_path / "set").mkdir()
    for name in "ab":
        write(tmp_path / "set" / name, name)
    return tmp_path / "set"


def write(path, text, *, seconds_ago=60):
    path.write_text(text)
    written_ns = path.stat().st_mtime_ns - seconds_ago * 1_000_000_000
    os.utime(path, ns=(written_ns, written_ns))


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def computed(folder, *names):
    """Compute digests, and save them."""
    cache = DigestCache(folder, cache=folder.parent / "cache")
    for name in names:
        assert cache.compute(name) == sha256((folder / name).read_text())
    cache.save()


def known(folder, name):
    return DigestCache(folder, cache=folder.parent / "cache").known(name)


def stored(folder):
    return list((folder.parent / "cache" / "digests").iterdir())


def test_a_digest_is_known_after_it_was_computed(folder):
    before = known(folder, "a")
    computed(folder, "a")
    assert (before, known(folder, "a"), known(folder, "b")) == (None, sha256("a"), None)


@pytest.mark.parametrize("text", ["c", "aa", "a"])
def test_a_file_that_was_written_since_is_unknown(folder, text):
    computed(folder, "a")
    write(folder / "a", text, seconds_ago=30)
    assert known(folder, "a") is None


def test_the_digest_of_a_file_that_was_just_written_is_not_remembered(folder):
    write(folder / "a", "new", seconds_ago=1)
    write(folder / "b", "settled", seconds_ago=3)
    computed(folder, "a", "b")
    assert (known(folder, "a"), known(folder, "b")) == (None, sha256("settled"))


def test_the_digest_of_a_file_that_changes_while_it_is_read_is_not_remembered(folder, monkeypatch):
    def read_and_change(path):
        write(path, "changed", seconds_ago=30)
        return sha256("a")

    monkeypatch.setattr(digest_cache, "sha256_of", read_and_change)
    cache = DigestCache(folder, cache=folder.parent / "cache")
    cache.compute("a")
    cache.save()
    assert known(folder, "a") is None


def test_processes_that_save_one_after_another_keep_what_both_computed(folder):
    first, second = (DigestCache(folder, cache=folder.parent / "cache") for _ in range(2))
    first.compute("a")
    second.compute("b")
    first.save()
    second.save()
    assert (known(folder, "a"), known(folder, "b")) == (sha256("a"), sha256("b"))


def test_many_that_save_at_once_leave_a_whole_file(folder):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: computed(folder, "a", "b"), range(40)))
    assert (known(folder, "a"), len(stored(folder))) == (sha256("a"), 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"folder": 3}', b'{"files": {"a": [1]}}', b"\xff"])
def test_a_damaged_file_of_digests_is_written_anew(folder, content):
    computed(folder, "a")
    stored(folder)[0].write_bytes(content)
    assert known(folder, "a") is None
    computed(folder, "b")
    assert known(folder, "b") == sha256("b")


def test_digests_of_another_folder_are_not_believed(folder):
    computed(folder, "a")
    path = stored(folder)[0]
    path.write_text(path.read_text().replace(str(folder), "/elsewhere"))
    assert known(folder, "a") is None


def test_a_link_to_a_folder_stands_for_it(folder):
    computed(folder, "a")
    (folder.parent / "link").symlink_to(folder)
    assert known(folder.parent / "link", "a") == sha256("a")


def test_a_cache_that_cannot_be_written_is_told_once_and_stops_nothing(folder, caplog):
    (folder.parent / "cache").touch()
    cache = DigestCache(folder, cache=folder.parent / "cache")
    for name in "ab":
        assert cache.compute(name) == sha256(name)
        cache.save()
    assert caplog.text.count("cannot be saved in") == 1
    assert "every start hashes all shards again; set CAPTIONING_CACHE" in caplog.text


def test_a_user_without_a_home_folder_is_told_and_not_stopped(folder, monkeypatch, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CAPTIONING_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    cache = DigestCache(folder)
    assert cache.compute("a") == sha256("a")
    cache.save()
    assert "cannot be saved in" in caplog.text


def test_files_that_are_gone_are_forgotten(folder):
    computed(folder, "a", "b")
    (folder / "a").unlink()
    write(folder / "b", "other")
    computed(folder, "b")
    assert '"a"' not in stored(folder)[0].read_text()


def test_the_folders_that_were_read_longest_ago_are_forgotten(folder, monkeypatch):
    monkeypatch.setattr(digest_cache, "_MAX_FOLDERS", 2)
    for number in range(3):
        other = folder.parent / f"set-{number}"
        other.mkdir()
        write(other / "a", "a")
        computed(other, "a")
        os.utime(max(stored(folder), key=lambda path: path.stat().st_mtime), (number, number))
    assert [known(folder.parent / f"set-{number}", "a") for number in range(3)] == [None, sha256("a"), sha256("a")]
