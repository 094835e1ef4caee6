import errno
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from captioning.pages.html import DARK, LIGHT, render_chart, style_axes, write_page
from tests.support.html import HOSTILE, Page, decode


def write(path, title):
    write_page(path, "gallery.html.jinja", {"title": title, "summary": [], "charts": [], "items": []})


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
    with pytest.raises(UndefinedError, match="'summary' is undefined"):
        write_page(path, "gallery.html.jinja", {"title": "new", "charts": [], "items": []})
    assert "old" in Page(path).texts


def test_text_is_escaped(tmp_path):
    write(tmp_path / "page.html", HOSTILE)
    page = Page(tmp_path / "page.html")
    assert (HOSTILE in page.texts, page.all("script")) == (True, [])


def test_a_chart_is_drawn_in_the_colours_of_both_themes():
    themes = []

    def draw(theme):
        themes.append(theme)
        figure = Figure()
        style_axes(figure.add_subplot(), theme, title="$x$", x_label="step")
        return figure

    first, second = render_chart("a chart", draw), render_chart("a chart", draw)
    light, dark = (decode(first[name], "image/svg+xml") for name in ("light", "dark"))
    assert (first, themes[:2], light != dark) == (second, [LIGHT, DARK], True)  # the same bytes every time
    assert ElementTree.fromstring(light).tag == "{http://www.w3.org/2000/svg}svg"
