import json

import pytest

from cluster.runs.record import lock_run
from jobs.cli import run_job
from tests.support.unsent_runs import history, run_id_of, truncate, unsent_run

pytestmark = pytest.mark.cluster


@pytest.fixture
def run(client, home):
    return unsent_run(client, home)


@pytest.fixture
def captioning(home, monkeypatch, capsys):
    """Return a function that runs ``captioning track`` and returns (exit code, standard output, standard error)."""
    monkeypatch.setenv("CAPTIONING_HOME", str(home.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def track(*arguments):
        with pytest.raises(SystemExit) as ended:
            run_job("track", [str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return track


def test_the_job_says_what_it_sent(captioning, run):
    code, printed, told = captioning("replay", run.name)
    assert (code, printed, told.startswith(f"MLflow run {run_id_of(run)} (FINISHED) at sqlite:///")) == (0, "", True)
    assert told.endswith(
        f": added 120 missing values; it now has all 60 intact rows of run {run.name}, up to step 60\n"
    )


def test_the_job_gives_one_json_document(captioning, run):
    document = json.loads(captioning("replay", run, "--json")[1])
    assert (document["rows"], document["steps"], document["mlflow_run_id"]) == (60, 60, run_id_of(run))


def test_a_dry_replay_sends_nothing(captioning, client, run):
    _, printed, told = captioning("replay", run, "--dry-run", "--json")
    assert (json.loads(printed)["num_segments"], "would send 6 journal segments" in told, history(client, run)) == (
        6, True, [],
    )  # fmt: skip


def test_a_damaged_segment_is_named_and_the_job_fails(captioning, run):
    truncate(run / "journal" / "000003.0.jsonl")
    code, printed, told = captioning("replay", run, "--json")
    assert (code, json.loads(printed)["rows"], "journal/000003.0.jsonl is damaged: line 10 is not a row" in told) == (
        1, 50, True,
    )  # fmt: skip
    assert "error: 1 of 6 journal segments are damaged and were left out; the rest was sent; restore the" in told


@pytest.mark.parametrize(
    ("arguments", "expected", "message"),
    [
        (("nothing",), 2, "error: nothing is not a run"),
        (("{run}", "--tracking.uri", "http://127.0.0.1:9"), 1, "error: MLflow at http://127.0.0.1:9 does not answer"),
        (("{run}", "--tracking.uri", "sqlite:///{other}/mlflow.db"), 2, "is not in the tracker at sqlite:///"),
    ],
)
def test_what_the_job_refuses_is_one_line(captioning, run, tmp_path, arguments, expected, message):
    code, _, told = captioning("replay", *(one.format(run=run.name, other=tmp_path) for one in arguments))
    assert (code, len(told.splitlines()), message in told) == (expected, 1, True), told


def test_the_job_refuses_a_run_with_a_live_driver(captioning, run):
    with lock_run(run):
        code, _, told = captioning("replay", run)
    assert (code, told.startswith(f"error: run {run.name} has a live driver already, process ")) == (2, True), told
