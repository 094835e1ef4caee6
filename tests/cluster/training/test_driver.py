"""Start of a run's coordinator, and the cases in which it is refused."""

import pytest
import ray

from cluster.coordination.messages import CoordinatorSettings
from cluster.runs.record import RunRecord, lock_run
from cluster.training.driver import start_coordinator

pytestmark = pytest.mark.cluster

SETTINGS = CoordinatorSettings(tracking_uri="sqlite://")


@pytest.fixture
def folder(session, tmp_path):
    """Return the folder of a run that has a record."""
    RunRecord(name=tmp_path.name, identity={}).save(tmp_path)
    return tmp_path


def test_a_run_that_is_locked_by_another_process_is_refused(folder):
    with (
        lock_run(folder),
        pytest.raises(BlockingIOError, match=r"has a live driver already, process \d+ on .*; wait for it, or stop it"),
    ):
        start_coordinator(folder, SETTINGS)


def test_a_run_that_has_a_coordinator_on_this_cluster_is_refused(folder):
    actor = start_coordinator(folder, SETTINGS)
    with pytest.raises(BlockingIOError, match="has a live driver on this cluster; wait for it, or stop it"):
        start_coordinator(folder, SETTINGS)
    ray.kill(actor)


def test_a_coordinator_that_does_not_start_says_why(session, tmp_path):
    with pytest.raises(RuntimeError, match=r"did not start: .* no run\.json; run the same command again to write it"):
        start_coordinator(tmp_path, SETTINGS)
