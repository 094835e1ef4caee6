from types import SimpleNamespace

from cluster.submission.job import JobState, job_state_of
from tests.support.case_table import each_case


@each_case(
    ("message", "reason"),
    [
        (None, ""),
        ("Job finished\nsuccessfully.", "Job finished successfully."),
        (
            "Job failed with exit code 2, last available logs (truncated):\nstarting\nerror: no shards\n\n",
            "no shards",
        ),
        (
            "Job failed with exit code 1, last available logs (truncated):\nerror: KeyError: 1\nthis is a fault\n",
            "KeyError: 1",
        ),
        (
            "Job failed with exit code 1, last available logs (truncated):\nTraceback:\nNo module named 'tyro'\n",
            "Job failed with exit code 1: No module named 'tyro'",
        ),
        (
            "runtime_env setup failed: Failed.\n[Node 10.0.0.1] Traceback:\n  File a\n    error: x is not found\n",
            "runtime_env setup failed: Failed. error: x is not found",
        ),
    ],
)
def test_how_a_job_ended_is_told_by_its_last_error_or_line(message, reason):
    told = SimpleNamespace(
        submission_id="a-1",
        status="FAILED",
        entrypoint="python -m jobs.cli convert /a /b",
        message=message,
        start_time=2000,
        end_time=5000,
        driver_exit_code=2,
        metadata=None,
    )
    job = job_state_of(told)
    assert (job.message, job.command, job.seconds, job.is_over) == (reason, "convert /a /b", 3.0, True)


@each_case(
    ("status", "is_over"),
    [("PENDING", False), ("RUNNING", False), ("SUCCEEDED", True), ("FAILED", True), ("STOPPED", True)],
)
def test_a_job_is_over_once_it_neither_runs_nor_waits(status, is_over):
    assert JobState(id="a-1", status=status, entrypoint="").is_over is is_over


def test_a_job_that_has_not_started_has_run_for_no_time():
    assert JobState(id="a-1", status="PENDING", entrypoint="").seconds == 0.0


def test_the_commit_is_known_of_a_job_that_we_submitted():
    ours, other = [
        JobState(id="a-1", status="RUNNING", entrypoint="", metadata=metadata)
        for metadata in ({"captioning.git_commit": "c" * 40}, {})
    ]
    assert (ours.commit, other.commit) == ("c" * 40, "")
