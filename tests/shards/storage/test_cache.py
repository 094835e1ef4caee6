import hashlib
import mmap
import os
import shutil
from functools import partial

import pytest

from shards.storage import cache, files
from shards.storage.cache import CacheEntry, ShardCache

SIZE = 100


def content_of(name):
    return (name.encode() * SIZE)[:SIZE]


def put(path, content):
    path.write_bytes(content)


def file(name, fetch=None):
    """Return the cache entry of a file of 100 bytes."""
    content = content_of(name)
    return CacheEntry(
        hashlib.sha256(content).hexdigest(), SIZE, f"there/{name}", fetch or partial(put, content=content)
    )


def cache_for(folder, num_copies):
    """Return a cache with room for the given number of copies."""
    return ShardCache(folder, limit_bytes=num_copies * SIZE)


def keep(folder, *names, num_copies=9):
    """Make copies, used one after the other."""
    for number, name in enumerate(names):
        cache_for(folder, num_copies).keep(file(name))
        if (folder / "verified" / file(name).sha256).exists():
            os.utime(folder / "verified" / file(name).sha256, (number, number))


def kept(folder):
    names = {file(name).sha256: name for name in "abcd"}
    return sorted(names.get(path.name, path.name) for path in folder.iterdir() if path.is_file())


def test_copies_that_were_not_used_for_longest_go_first(tmp_path):
    keep(tmp_path, "a", "b", "c")
    cache_for(tmp_path, 2).open(file("a")).close()
    keep(tmp_path, "d", num_copies=2)
    assert kept(tmp_path) == ["a", "d"]


def test_a_copy_that_is_mapped_stays_until_its_map_is_closed(tmp_path, caplog):
    with cache_for(tmp_path, 1).open(file("a")) as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    keep(tmp_path, "b", num_copies=1)
    assert (kept(tmp_path), mapped[:]) == (["a", "b"], content_of("a"))
    assert " GiB, and all are in use; raise --cache-gib" in caplog.text
    mapped.close()
    keep(tmp_path, "c", num_copies=1)
    assert kept(tmp_path) == ["c"]


def test_what_a_killed_process_left_goes_like_a_copy(tmp_path):
    torn = tmp_path / f"{file('a').sha256}.part"
    torn.write_bytes(bytes(SIZE))
    os.utime(torn, (0, 0))
    keep(tmp_path, "b", "c", num_copies=2)
    assert kept(tmp_path) == ["b", "c"]


def test_what_is_being_fetched_stays(tmp_path):
    def fetch(path):
        put(path, content_of("a"))
        os.utime(path, (0, 0))
        keep(tmp_path, "b", num_copies=1)
        assert path.name in kept(tmp_path)

    cache_for(tmp_path, 1).keep(file("a", fetch))
    assert kept(tmp_path) == ["a", "b"]


def test_a_full_disk_makes_copies_go(tmp_path, monkeypatch):
    keep(tmp_path, "a", "b")
    free = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    keep(tmp_path, "c")
    assert kept(tmp_path) == ["b", "c"]


def test_files_of_others_stay(tmp_path):
    (tmp_path / "letter.txt").write_bytes(bytes(9 * SIZE))
    keep(tmp_path, "a", "b", num_copies=1)
    assert kept(tmp_path) == ["b", "letter.txt"]


def test_a_cut_copy_is_replaced(tmp_path):
    keep(tmp_path, "a")
    os.truncate(tmp_path / file("a").sha256, 10)
    with cache_for(tmp_path, 1).open(file("a")) as opened:
        assert opened.read() == content_of("a")


@pytest.fixture
def hashed(monkeypatch):
    """Return the names of the files that the cache hashes, in order."""
    names = []

    def sha256_of(path):
        names.append(path.name)
        return files.sha256_of(path)

    monkeypatch.setattr(cache, "sha256_of", sha256_of)
    return names


def test_a_copy_is_hashed_when_it_is_fetched_and_not_when_it_is_read_again(tmp_path, hashed):
    for _ in range(3):
        cache_for(tmp_path, 1).open(file("a")).close()
    assert hashed == [f"{file('a').sha256}.part"]


def test_a_copy_that_was_altered_at_the_same_size_is_replaced(tmp_path):
    keep(tmp_path, "a")
    (tmp_path / file("a").sha256).write_bytes(bytes(SIZE))
    with cache_for(tmp_path, 1).open(file("a")) as opened:
        assert opened.read() == content_of("a")


def test_a_copy_that_was_written_again_with_the_same_content_is_hashed_once_and_not_fetched(tmp_path, hashed):
    keep(tmp_path, "a")
    (tmp_path / file("a").sha256).write_bytes(content_of("a"))
    hashed.clear()
    for _ in range(2):
        cache_for(tmp_path, 1).open(file("a", fetch=None)).close()
    assert hashed == [file("a").sha256]


@pytest.mark.parametrize("content", [None, b"", b"[1", b"[100, 1, 1]"])
def test_a_copy_whose_mark_is_gone_or_damaged_is_hashed(tmp_path, hashed, content):
    keep(tmp_path, "a")
    mark = tmp_path / "verified" / file("a").sha256
    mark.unlink() if content is None else mark.write_bytes(content)
    hashed.clear()
    keep(tmp_path, "a")
    assert hashed == [file("a").sha256]


def test_the_mark_of_a_copy_goes_with_it(tmp_path):
    keep(tmp_path, "a", "b", num_copies=1)
    assert [path.name for path in (tmp_path / "verified").iterdir()] == [file("b").sha256]


def test_a_copy_that_goes_before_it_is_open_is_fetched_again(tmp_path, monkeypatch):
    keep(tmp_path, "a")
    touch = os.utime

    def touch_and_lose(path):
        touch(path)
        (tmp_path / file("a").sha256).unlink()
        monkeypatch.setattr(os, "utime", touch)

    monkeypatch.setattr(os, "utime", touch_and_lose)
    with cache_for(tmp_path, 1).open(file("a")) as opened:
        assert opened.read() == content_of("a")


def test_what_arrives_altered_is_fetched_again(tmp_path, caplog):
    contents = iter([bytes(SIZE), content_of("a")])
    with cache_for(tmp_path, 1).open(file("a", lambda path: put(path, next(contents)))) as opened:
        assert opened.read() == content_of("a")
    assert "there/a: the fetched content does not match its record" in caplog.text


def test_what_arrives_altered_twice_is_named_and_not_kept(tmp_path):
    message = f"^there/a has the sha256 {hashlib.sha256(b'').hexdigest()[:12]}, but its record says .*; upload it again"
    with pytest.raises(ValueError, match=message):
        cache_for(tmp_path, 1).keep(file("a", lambda path: put(path, b"")))
    assert kept(tmp_path) == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ValueError, match=r"cannot be cached in .*/file/cache \(Not a directory\); set CAPTIONING_CACHE to an"
    ):
        cache_for(tmp_path / "file" / "cache", 1)
