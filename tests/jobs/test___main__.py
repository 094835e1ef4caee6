"""What ``python -m`` runs: the command line, whose help imports nothing that takes long."""

import json
import subprocess
import sys

import pytest

from jobs.cli import JOBS
from tests.support.case_table import each_case

HEAVY = ("torch", "torchvision", "ray", "mlflow", "pandas", "matplotlib", "pycocoevalcap")
CALLS = """
import contextlib, io, json, runpy, sys
heavy, calls = map(json.loads, sys.argv[1:])
answers = []
for module, *arguments in calls:
    loaded, printed, sys.argv = set(sys.modules), io.StringIO(), ["captioning", *arguments]
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
    answers.append((code, printed.getvalue(), [name for name in heavy if name in {*sys.modules} - loaded]))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    """Run modules as ``python -m`` does, all in one process; return their exit codes, outputs and heavy imports."""
    calls = [["jobs.cli", "--help"], *(["jobs.cli", job, "--help"] for job in JOBS)]
    calls.append(["jobs.cli", "train", "smoke", "--print-config"])
    calls += [["jobs.cli", "help", "train"], ["jobs", "train", "--help"], ["jobs.train", "--help"]]
    command = [sys.executable, "-W", "ignore", "-c", CALLS, json.dumps(HEAVY), json.dumps(calls)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return {tuple(call): answer for call, answer in zip(calls, json.loads(answer.stdout), strict=True)}


def test_help_imports_nothing_heavy(answers):
    calls = [("jobs.cli", "--help"), *(("jobs.cli", job, "--help") for job in JOBS)]
    told = {call: (answers[call][0], answers[call][2]) for call in calls}
    assert {call: found for call, found in told.items() if found != (0, [])} == {}


def test_printing_a_configuration_imports_nothing_heavy(answers):
    code, _, heavy = answers["jobs.cli", "train", "smoke", "--print-config"]
    assert (code, heavy) == (0, [])


@each_case("job", JOBS)
def test_every_job_is_called_as_its_help_says(answers, job):
    code, printed, _ = answers["jobs.cli", job, "--help"]
    assert (code, f"usage: captioning {job} [-h]" in printed, "{None}" in printed) == (0, True, False), printed


@pytest.mark.parametrize("call", [("jobs.cli", "help", "train"), ("jobs", "train", "--help")], ids=" ".join)
def test_help_is_reached_in_other_ways(answers, call):
    assert answers[call][:2] == answers["jobs.cli", "train", "--help"][:2]


def test_a_job_that_is_run_as_a_module_is_refused(answers):
    assert answers["jobs.train", "--help"][0] == 2
