"""Stop, end and kill parts of a run on an embedded cluster; its end must be that of a run that nobody disturbed."""

import signal
from collections import Counter
from types import SimpleNamespace

import psutil
import pytest

from tests.faults.comparison import assert_unharmed
from tests.support.local_cluster import is_of_a_job, title, wait_until
from tests.support.training_process import TrainingRun, tracked_runs

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(900)]

_LOADERS = ["--cluster.num-loader-processes", "1"]  # they must end with their worker


def wait_for_checkpoint(run, *, attempt):
    """Look until a checkpoint of an attempt, or of a later one, counts."""

    def is_there():
        assert run.code() is None, f"it ended with {run.code()} before it could be killed:\n{run.log_tail()}"
        return any(checkpoint.attempt >= attempt for checkpoint in run.record.checkpoints)

    wait_until(is_there, lambda: f"a checkpoint of attempt {attempt}:\n{run.log_tail()}", seconds=240)


def stop_a_starting_worker(run):
    """Stop the first worker that starts, before it has said a word: Ray itself would wait for it forever."""

    def starting():
        family = psutil.Process(run.driver.pid).children(recursive=True)
        return [one for one in family if title(one).startswith("ray::RayTrainWo")]  # Ray may cut its titles

    first, *_ = wait_until(starting, lambda: f"workers start:\n{run.log_tail()}", seconds=120)
    first.send_signal(signal.SIGSTOP)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory, flags):
    """Return how a run went on after a starting worker was stopped, a driver ended, and another driver killed."""
    run = TrainingRun(
        None, tmp_path_factory.mktemp("home"), "disturbed", [*flags, "--cluster.num-loader-processes", "1"]
    )
    try:
        run.start()
        stop_a_starting_worker(run)
        wait_for_checkpoint(run, attempt=1)
        log_of_start = run.log_tail()
        run.strike_driver(signal.SIGTERM)
        _, (marked,) = tracked_runs(run, None)
        told = SimpleNamespace(code=run.code(), record=run.record, status=marked.info.status, steps=steps_of(run))

        run.start()
        wait_for_checkpoint(run, attempt=told.record.attempt + 1)
        family = psutil.Process(run.driver.pid).children(recursive=True)
        of_the_run = [member for member in family if is_of_a_job(member)]
        run.strike_driver(signal.SIGKILL)
        # At once: workers take some more steps before they notice, and what they commit counts.
        killed = run.record
        _, lingering = psutil.wait_procs(of_the_run, timeout=120)

        run.start()
        run.finish(seconds=300)
        psutil.wait_procs(family, timeout=180)  # agents of Ray notice after a minute
        left = [*lingering, *(member for member in family if member.is_running())]
        yield SimpleNamespace(run=run, log_of_start=log_of_start, told=told, killed=killed, left=left)
    finally:
        run.stop()


def steps_of(run):
    """Return how often each step's loss is in MLflow."""
    client, (tracked,) = tracked_runs(run, None)
    return Counter(metric.step for metric in client.get_metric_history(tracked.info.run_id, "train_loss_nats"))


def test_a_worker_that_hangs_as_it_starts_is_told_and_the_workers_start_again(disturbed):
    _, is_told, after = disturbed.log_of_start.partition("the start of the workers hangs")
    assert (bool(is_told), "starting 2 workers" in after) == (True, True), disturbed.log_of_start


def test_a_driver_that_is_told_to_end_marks_the_run_and_saves_its_last_step(disturbed, undisturbed):
    told, latest = disturbed.told, disturbed.told.record.latest_step
    assert (told.code, told.status, told.steps) == (143, "KILLED", Counter(range(1, latest + 1)))
    assert latest < undisturbed.record.latest_step


def test_a_killed_driver_was_killed_before_the_end(disturbed, undisturbed):
    assert disturbed.killed.latest_step < undisturbed.record.latest_step


def test_a_killed_driver_leaves_no_process(disturbed):
    assert disturbed.left == []


def test_the_same_command_continues_the_same_mlflow_run(disturbed):
    records = (disturbed.told.record, disturbed.killed, disturbed.run.record)
    assert len({record.mlflow_run_id for record in records}) == 1


def test_it_ends_with_the_bits_the_samples_and_the_tracked_steps_of_a_run_that_nobody_disturbed(disturbed, undisturbed):
    claims = assert_unharmed(disturbed.run, undisturbed)
    assert [claim.partition(" ")[0] for claim in claims] == ["each", "all", "one", "no"]
