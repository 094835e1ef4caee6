"""Addresses of tars: what they name, and which are refused."""

import re

import fsspec
import pytest

from shards.tars import patterns
from shards.tars.patterns import find_tars, split_of
from tests.support.case_table import each_case
from tests.support.http_server import answering


@pytest.fixture
def folder(tmp_path):
    for name in ("a/00.tar", "a/01.tar", "b/00.tar", "a/00_stats.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("a/{00..01}.tar", ["a/00.tar", "a/01.tar"]),
        ("{a,b}/00.tar", ["a/00.tar", "b/00.tar"]),
        ("a/*.tar", ["a/00.tar", "a/01.tar"]),
        ("a", ["a/00.tar", "a/01.tar"]),
        ("", ["a/00.tar", "a/01.tar", "b/00.tar"]),
        ("a/../b", ["b/00.tar"]),
    ],
)
def test_files_folders_braces_and_globs_name_tars(folder, address, found):
    assert find_tars([f"{folder}/{address}"]) == [f"{folder}/{name}" for name in found]


def test_an_object_store_is_listed():
    system = fsspec.filesystem("memory")
    for name in ("0.tar", "deep/1.tar", "notes.txt"):
        system.pipe_file(f"/tars/{name}", b"")
    try:
        assert find_tars(["memory://tars"]) == ["memory:///tars/0.tar", "memory:///tars/deep/1.tar"]
        assert find_tars(["memory://tars/*.tar"]) == ["memory:///tars/0.tar"]
        assert find_tars(["memory://tars/{0..1}.tar"]) == ["memory://tars/0.tar", "memory://tars/1.tar"]
    finally:
        system.rm("/tars", recursive=True)


def test_a_web_server_need_not_list_its_files():
    with answering({}) as url:
        assert find_tars([f"{url}/{{0..1}}.tar?download=true"]) == [f"{url}/{n}.tar?download=true" for n in (0, 1)]


@pytest.mark.parametrize(
    ("address", "kind", "fault"),
    [
        ("none.tar", FileNotFoundError, "none.tar does not exist; give tars, folders of tars, or URLs"),
        ("c*", FileNotFoundError, r"c\* has no .tar; give tars"),
        ("a/{00..", ValueError, r"a/\{00\.\. is no pattern \(.*\); write \{000..099\}"),
        ("{000000..999999999}.tar", ValueError, r"is no pattern \(it names more than 1,000,000 tars\)"),
        ("z", ValueError, "x.tar.gz: a sample in the middle of a compressed tar cannot be read alone; decompress it"),
        ("z/x.tar.gz", ValueError, "x.tar.gz: a sample in the middle"),
        ("l", FileNotFoundError, "l/1.tar is a link that leads nowhere; restore its tar, or remove the link"),
        ("e", FileNotFoundError, "e has no .tar; it has 1 other files, first .*note.txt; give tars"),
    ],
)
def test_what_names_no_tar_is_refused(folder, address, kind, fault):
    (folder / "z").mkdir()
    (folder / "z" / "x.tar.gz").write_bytes(b"")
    (folder / "l").mkdir()
    (folder / "l" / "0.tar").write_bytes(b"")
    (folder / "l" / "1.tar").symlink_to("gone")
    (folder / "e").mkdir()
    (folder / "e" / "note.txt").write_bytes(b"")
    with pytest.raises(kind, match=fault):
        find_tars([f"{folder}/{address}"])


def test_a_tar_is_named_once(folder):
    with pytest.raises(ValueError, match=f"{re.escape(str(folder))}/a/00.tar is named twice, by .*/a and .*/a/00.tar"):
        find_tars([f"{folder}/a", f"{folder}/a/00.tar"])


def test_credentials_are_refused():
    with pytest.raises(ValueError, match="contains credentials"):
        find_tars(["https://user:word@host/0.tar"])


@each_case(
    ("address", "split"),
    [
        ("val=a/0.tar", ("val", "a/0.tar")),
        ("validation=s3://b/0.tar", ("val", "s3://b/0.tar")),
        ("https://host/0.tar?a=b", ("", "https://host/0.tar?a=b")),
        ("a/x=1.tar", ("", "a/x=1.tar")),
    ],
)
def test_an_address_may_name_its_split(address, split):
    assert split_of(address) == split


def test_patterns_that_name_too_many_tars_together_are_refused(folder, monkeypatch):
    monkeypatch.setattr(patterns, "_MOST_TARS", 8)
    with pytest.raises(ValueError, match=r"is no pattern \(it names more than 8 tars\)"):
        find_tars([f"{folder}/{{0..2}}{{a,b,c}}.tar"])
