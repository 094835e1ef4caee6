import sys

import pytest

from jobs.cli import run_job
from jobs.logs import LogsJob, find_rank, show_line


def test_a_log_of_a_rank_is_not_followed(capsys):
    with pytest.raises(SystemExit):
        run_job("logs", ["a-1", "--rank", "1", "--follow"])
    assert "error: the log of a rank cannot be followed; leave out --follow or --rank" in capsys.readouterr().err


def test_a_line_of_a_log_moves_no_cursor(capsys):
    show_line("a\x1b[2Jb", sys.stdout)
    assert capsys.readouterr().out == "a\\x1b[2Jb\n"


def test_a_rank_is_found_where_the_last_group_was(told):
    assert find_rank(told, LogsJob(id="big-1", rank=1))["host"] == "host-1"


def test_a_rank_that_is_not_in_the_last_group_is_refused(told):
    with pytest.raises(ValueError, match="job big-1 has no rank 7; use one of its latest ranks, 0 to 1"):
        find_rank(told, LogsJob(id="big-1", rank=7))
