import os
from pathlib import Path

import pytest

from cluster.errors import Refusal
from jobs.console.output_files import require_output_files


def test_a_file_that_can_be_written_is_not_touched(tmp_path):
    (tmp_path / "old.html").write_text("<!DOCTYPE html><p>old")
    require_output_files(html=tmp_path / "old.html", out=tmp_path / "new" / "results.json")
    require_output_files(html=None, out=Path(os.devnull))
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]


@pytest.mark.parametrize("flag", ["out", "html"])
def test_what_is_no_earlier_result_is_not_written_over(tmp_path, flag):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(
        Refusal, match=rf"--{flag} {tmp_path}/manifest.json exists, and is no earlier result of --{flag};"
    ):
        require_output_files(**{flag: tmp_path / "manifest.json"})


def test_two_results_need_two_files(tmp_path):
    with pytest.raises(Refusal, match=r"--html and --out are the same file, .*; name two files"):
        require_output_files(out=tmp_path / "a", html=tmp_path / "b" / ".." / "a")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(Refusal, match=rf"^--html {tmp_path} is a folder; name a file in it$"):
        require_output_files(html=tmp_path)


def test_a_file_below_a_file_is_refused(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(Refusal, match=rf"--out {tmp_path}/a/b/c.json cannot be written, for {tmp_path}/a is no folder"):
        require_output_files(out=tmp_path / "a" / "b" / "c.json")


def test_a_folder_of_others_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(Refusal, match=rf"for {tmp_path} cannot be written by this user; name another file"):
        require_output_files(out=tmp_path / "c.json")
