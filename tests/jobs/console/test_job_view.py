import io

import pytest
from rich.console import Console

from cluster.coordination.messages import WorkerInfo
from cluster.job_progress import ProgressWriter, duration, is_progress, read_progress
from cluster.submission.job import JobState
from jobs.console.job_view import job_line, job_table, latest_progress
from tests.support.case_table import each_case

ADDRESS = "http://head:8265"
METRICS = {"epoch": 0.5, "train_loss_nats": 2.5, "images_per_second": 80.0, "data_wait_share": 0.25}
WORKERS = tuple(WorkerInfo(rank, "n" * 56, f"host-{rank}", 7, f"/logs/{rank}.err") for rank in range(2))


@pytest.fixture
def job():
    metadata = {"captioning.git_commit": "c" * 40}
    return JobState(
        id="big-1",
        status="RUNNING",
        entrypoint="python -m jobs.cli train --name big",
        started=0.0,
        ended=3725.0,
        metadata=metadata,
    )


def shown(table):
    stream = io.StringIO()
    Console(file=stream, width=120).print(table)
    return stream.getvalue()


def test_a_training_job_is_shown_with_all_that_it_has_told(job, told):
    text = shown(job_table(job, latest_progress(told), address=ADDRESS))
    expected = [
        "RUNNING, 1 h 02 min",
        "train --name big",
        "cccccccccccc ",
        "training ",
        "51 of 100 (epoch 0.50)",
        "validation loss 2.250 nats/word at step 40 (best at step 40)",
        "step 50 ",
        "2.500 nats/word",
        "80 images/s",
        "25% of the time",
        "2 on 2 hosts",
        "9 s",
        "http://mlflow:5000/#/runs/abc",
        "http://head:8265/#/jobs/big-1",
    ]
    assert [one for one in expected if one not in text] == [], text


def test_what_a_job_has_told_moves_no_cursor(job):
    text = shown(job_table(job, {"kind": "training", "phase": "[bold]a\x1b[2J"}, address=ADDRESS))
    assert "[bold]a\\x1b[2J" in text


def test_it_tells_where_its_ranks_log_once(told):
    assert [read_progress(line)["ranks"][1]["log"] for line in told if '"ranks"' in line] == ["/logs/1.err"]


def test_a_line_says_the_same_in_short(job, told):
    line = job_line(job, latest_progress(told), address=ADDRESS)
    assert line.startswith(
        "big-1: status RUNNING, 1 h 02 min, phase training, step 51 of 100 (epoch 0.50), loss 2.500 nats/word, scores "
    )


def test_a_search_is_shown_by_its_trials(job):
    progress = {
        "kind": "search",
        "num_trials_done": 3,
        "num_trials": 20,
        "num_running": 2,
        "num_epochs": 14,
        "best": "trial-0001",
        "best_score": 1.25,
        "metric": "validation_loss_nats",
        "seconds_left": 60.0,
    }
    text = shown(job_table(job, progress, address=ADDRESS))
    expected = ["3 of 20, 2 running", "trial-0001: validation loss 1.2500 nats/word", "1 min 00 s"]
    assert [one for one in expected if one not in text] == [], text


def test_a_job_that_has_told_nothing_is_shown_too(job):
    assert "step" not in shown(job_table(job, {}, address=ADDRESS))


def test_progress_is_told_every_few_seconds_and_only_if_it_is_new(monkeypatch, capsys):
    monkeypatch.setenv("CAPTIONING_JOB", "big-1")
    now = [0.0]
    writer = ProgressWriter({"kind": "x"}, clock=lambda: now[0])
    for now[0], step in ((0.0, 1), (1.0, 2), (4.0, 3), (8.0, 3)):
        writer.write({"step": step})
    assert [read_progress(line)["step"] for line in capsys.readouterr().err.splitlines()] == [1, 3]


def test_a_job_that_nobody_submitted_tells_nothing(monkeypatch, capsys):
    monkeypatch.delenv("CAPTIONING_JOB", raising=False)
    ProgressWriter({}).write({"step": 1}, is_last=True)
    assert capsys.readouterr().err == ""


@each_case(
    ("line", "is_hidden", "found"),
    [
        ('captioning-progress {"a": 1}', True, {"a": 1}),
        ("captioning-progress {torn", True, None),
        ("captioning-progress 1", True, None),
        ("step 1 of 2", False, None),
    ],
)
def test_lines_of_progress_are_told_from_those_for_people(line, is_hidden, found):
    assert (is_progress(line), read_progress(line)) == (is_hidden, found)


@each_case(("seconds", "text"), [(7.9, "7 s"), (187, "3 min 07 s"), (3900, "1 h 05 min")])
def test_a_time_is_said_as_people_say_it(seconds, text):
    assert duration(seconds) == text
