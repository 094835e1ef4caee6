"""A worker that is stopped while its group starts, before it has said a word: Ray itself would wait for ever."""

import signal

import pytest

from tests.faults.chaos import flags_for
from tests.support.local_cluster import local_cluster, wait_until
from tests.support.training_process import TrainingRun

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def story(tmp_path_factory, drawn_shards):
    """Return what the coordinator told of a run that trains in spite of it."""
    with local_cluster(num_nodes=2) as cluster:
        run = TrainingRun(cluster, tmp_path_factory.mktemp("home"), "stopped", flags_for(5, drawn_shards))
        try:
            run.start()
            started = wait_until(
                lambda: len(found := cluster.processes("worker")) == 2 and found, lambda: "workers start", seconds=120
            )
            started[0].send_signal(signal.SIGSTOP)
            wait_until(run.look, lambda: f"it trains:\n{run.log_tail()}", seconds=240)
            yield run.progress().events
        finally:
            run.stop()


def test_it_is_told_and_the_workers_start_again(story):
    hung = next(number for number, event in enumerate(story) if "the start of the workers hangs" in event)
    assert "starting 2 workers" in story[hung:]
