import json

import pytest

from jobs.cli import exit_after
from jobs.console.output import write_json


def test_what_libraries_print_is_kept_out_of_the_results(capsys):
    def job():
        print("noise")  # noqa: T201  as Ray does
        write_json({"result": 1})

    with pytest.raises(SystemExit):
        exit_after(job)
    printed = capsys.readouterr()
    assert (json.loads(printed.out), "noise" in printed.err) == ({"result": 1}, True)
