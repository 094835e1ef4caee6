import os
from contextlib import suppress

import psutil
import pytest

from cluster.config import ClusterConfig
from cluster.resources.prestart import can_prestart
from cluster.resources.session import cluster_session
from cluster.training.group_trainer import GroupTrainer, ProcessGroupConfig, prestart_group, worker_env_vars
from tests.support.local_cluster import wait_until


def test_without_a_session_no_process_starts():
    assert not can_prestart({})
    assert worker_env_vars(ClusterConfig()) == {}
    prestart_group(ClusterConfig())


def idle():
    """Return the numbers of Ray's processes that no task or actor has taken."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            if process.cmdline()[:1] == ["ray::IDLE"]:
                found.add(process.pid)
    return found


def leave(name):
    """Write this process's number and the modules that it has imported into a file, in place of training."""
    import sys
    from pathlib import Path

    Path(f"{name}-{os.getpid()}").write_text(f"{'torchvision' in sys.modules}")


@pytest.mark.cluster
def test_a_group_and_its_controller_take_the_processes_that_were_started_ahead(tmp_path):
    import ray
    from ray.train import RunConfig, ScalingConfig

    with cluster_session(ClusterConfig()):
        wanted = ClusterConfig(num_workers=2)
        assert can_prestart({"CPU": 2.0})
        assert not can_prestart({"CPU": 1e6})  # what a node that the autoscaler starts later may have
        prestart_group(wanted)
        ahead = wait_until(lambda: len(found := idle()) == 5 and found, lambda: "five processes", seconds=120)
        GroupTrainer(
            leave,
            train_loop_config=f"{tmp_path}/rank",
            backend_config=ProcessGroupConfig("gloo"),
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(
                storage_path=str(tmp_path / "ray"), worker_runtime_env={"env_vars": worker_env_vars(wanted)}
            ),
        ).fit()
        assert idle() < ahead  # the coordinator's, which nobody has wanted, and no new one
        assert not ray.get(ray.remote(can_prestart).remote({}))  # a trial's process, whose actors may run anywhere
    ranks = {int(path.name.partition("-")[2]): path.read_text() for path in tmp_path.glob("rank-*")}
    assert len(ranks) == 2
    assert ranks.keys() < ahead
    assert set(ranks.values()) == {"True"}
