import os

import pytest

from cluster.errors import Refusal
from jobs.console.output_files import require_output_files


def test_a_file_that_can_be_written_is_not_touched(tmp_path):
    (tmp_path / "old.html").write_text("old")
    require_output_files(html=tmp_path / "old.html", out=tmp_path / "new" / "results.json", page=None)
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(Refusal, match=rf"^--html-page {tmp_path} is a folder; name a file in it$"):
        require_output_files(html_page=tmp_path)


def test_a_file_below_a_file_is_refused(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(Refusal, match=rf"--out {tmp_path}/a/b/c.json cannot be written, for {tmp_path}/a is no folder"):
        require_output_files(out=tmp_path / "a" / "b" / "c.json")


def test_a_folder_of_others_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(Refusal, match=rf"for {tmp_path} cannot be written by this user; name another file"):
        require_output_files(out=tmp_path / "c.json")
