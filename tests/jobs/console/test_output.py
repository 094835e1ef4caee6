import json
import logging

import pytest

from jobs.cli import exit_after
from jobs.console.output import log_loading, write_json


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
