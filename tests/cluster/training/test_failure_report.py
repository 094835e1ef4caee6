"""Text of the failure report; the integration tests cover the log lines that are fetched from a worker's node."""

import pytest

from cluster.config import StorageConfig, TrainRun
from cluster.coordination.messages import RunProgress, WorkerInfo
from cluster.coordination.restart_policy import Failure, FinalFailure
from cluster.runs.record import CommittedCheckpoint
from cluster.training.failure_report import failure_text, last_lines

WORKER = WorkerInfo(rank=1, node_id="0123456789abcdef", host="node-2", pid=7, log="")


def text(tmp_path, failure, **progress):
    run = TrainRun(name="r", storage=StorageConfig(home=tmp_path))
    final = FinalFailure("every worker failed with the same error", failure)
    return failure_text(run, RunProgress(1, None, [], final_failure=final, **progress)).splitlines()


def test_the_failed_worker_is_named_with_its_place_in_the_stream(tmp_path):
    failure = Failure(1, 4, 32, "KeyError: 'x'")
    assert text(tmp_path, failure, workers=(WORKER,))[0] == (
        "training failed on rank 1 (process 7 on node-2), node 0123456789ab after step 4 (position 32 of the stream): "
        "KeyError: 'x'"
    )


@pytest.mark.parametrize(
    ("rank", "where"),
    [(1, "on rank 1 on node-3"), (-1, "on the driver's node")],  # no group has begun
)
def test_a_failure_before_the_group_began_is_named_by_what_is_known(tmp_path, rank, where):
    assert where in text(tmp_path, Failure(rank, 0, 0, "gone", node="node-3"))[0]


@pytest.mark.parametrize(
    ("latest", "start"),
    [
        (CommittedCheckpoint(step=5, attempt=2), "resume from the checkpoint of step 5, step-00000005-attempt-2"),
        (None, "start from the beginning (there is no checkpoint)"),
    ],
)
def test_the_command_that_goes_on_is_given_with_its_start(tmp_path, latest, start):
    home = tmp_path / "my runs"
    assert text(home, None, latest=latest)[2] == (
        f"After fixing the cause, {start}: captioning train --config '{home}/training/r/config.yaml'"
    )


def test_who_has_lost_the_run_to_another_is_not_told_to_resume(tmp_path):
    lost = Failure(0, 4, 32, "ClaimLostError: the files at s3://b/r belong to process 2 on west")
    advice = text(tmp_path, lost, latest=CommittedCheckpoint(step=5, attempt=2))[2]
    assert advice.startswith("The other process has the run now; leave it to finish, or take the run back: captioning")
    assert advice.endswith("config.yaml --take-over")


def test_a_traceback_is_shown_where_no_log_can_be_fetched(tmp_path):
    assert text(tmp_path, Failure(0, 0, 0, "x", log=("Traceback", "KeyError")))[3:] == [
        "The last 2 lines of that worker's log:",
        "  Traceback",
        "  KeyError",
    ]


def test_the_last_lines_of_a_log_that_is_gone_are_none(tmp_path):
    (tmp_path / "log").write_text("a\nb\nc\n")
    assert (last_lines(str(tmp_path / "log"), 2), last_lines(str(tmp_path / "none"), 2)) == (["b", "c"], [])
