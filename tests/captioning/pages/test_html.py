import base64
import errno
import hashlib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from captioning.pages.html import write_page
from tests.support.html import HOSTILE, Page

GALLERY = {"cards": [], "orders": [], "verdicts": False, "num_shown": 0, "num_pictures": 0, "names": None}


def write(path, title):
    values = {"title": title, "gallery": GALLERY, "faults": [], "facts": [], "commands": [], "scores": [], "rival": ""}
    write_page(path, "gallery.html.jinja", values)


def test_a_page_replaces_the_last_and_leaves_nothing_else(tmp_path):
    folder = tmp_path / "new" / "folder"
    for title in ("old", "new"):
        write(folder / "page.html", title)
    assert [path.name for path in folder.iterdir()] == ["page.html"]
    assert "new" in Page(folder / "page.html").texts


def test_a_page_on_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def write_text(path, *arguments, **options):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(OSError, match=r"No space left on device: '.*/page\.html'"):
        write(tmp_path / "page.html", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_made_leaves_the_last_one(tmp_path):
    path = tmp_path / "page.html"
    write(path, "old")
    with pytest.raises(UndefinedError, match="'scores' is undefined"):
        write_page(path, "gallery.html.jinja", {"title": "new"})
    assert "old" in Page(path).texts


def test_text_is_escaped(tmp_path):
    write(tmp_path / "page.html", HOSTILE)
    page = Page(tmp_path / "page.html")
    page.assert_only_own_script()
    assert HOSTILE in page.texts


def test_the_policy_of_a_page_allows_its_own_script_alone(tmp_path):
    write(tmp_path / "page.html", "x")
    page = Page(tmp_path / "page.html")
    [policy] = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
