import io
import json
import logging
import shlex
from pathlib import Path

import pytest

from cluster.job_progress import JOB_VARIABLE
from jobs.cli import exit_after
from jobs.console.output import log_loading, log_next, write_json, write_line


@pytest.mark.parametrize(("level", "is_shown"), [("INFO", False), ("DEBUG", True)])
def test_what_libraries_print_is_only_logged_for_debugging(capsys, monkeypatch, level, is_shown):
    monkeypatch.setenv("CAPTIONING_LOG_LEVEL", level)

    def job():
        print("noise")  # noqa: T201  as Ray does
        write_json({"result": 1})

    with pytest.raises(SystemExit):
        exit_after(job)
    printed = capsys.readouterr()
    assert (json.loads(printed.out), "noise" in printed.err) == ({"result": 1}, is_shown)


def test_only_libraries_that_are_not_imported_yet_are_announced(caplog, log_lines):
    caplog.set_level(logging.INFO, "jobs")
    log_loading(["json", "no_such_library", "none_either"])
    log_loading(["json"])
    assert log_lines() == ["loading no_such_library, none_either"]


def test_a_line_has_nothing_that_moves_a_terminals_cursor_or_ends_the_line(capsys):
    write_line("a\tb\x1b[2J.jpg", "a dog\na cat \udce9")
    assert capsys.readouterr().out == "a\\tb\\x1b[2J.jpg\ta dog\\na cat \\udce9\n"


def test_the_next_command_can_be_pasted_into_a_shell(caplog, log_lines, monkeypatch):
    caplog.set_level(logging.INFO, "jobs")
    log_next("caption", "IMAGE", "--model", "models:/my model@champion")
    monkeypatch.setenv(JOB_VARIABLE, "job")
    log_next("train", "--shards", Path("/data/o'neil"), "--name", "NAME")
    assert [shlex.split(line) for line in log_lines()] == [
        ["next:", "captioning", "caption", "IMAGE", "--model", "models:/my model@champion"],
        ["next:", "captioning", "submit", "train", "--shards", "/data/o'neil", "--name", "NAME"],
    ]


def test_what_the_terminals_encoding_lacks_is_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    write_line("café", "犬", stream=stream)
    stream.flush()
    assert stream.buffer.getvalue() == "café\t\\u72ac\n".encode("latin-1")


def test_json_stays_json(capsys):
    write_json(["\x1b[2J\n\udce9"])
    assert json.loads(capsys.readouterr().out) == ["\x1b[2J\n\udce9"]
