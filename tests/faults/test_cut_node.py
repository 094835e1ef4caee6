"""A node that is cut off: Ray declares it dead, and what it was doing is done elsewhere.

All processes of the node are stopped, which the other nodes cannot tell from a cut link.
"""

import signal

import psutil
import pytest

from cluster.data.conversion import convert, plan_conversion
from shards.images import ImageSpec
from shards.synthetic.scenes import write_scenes
from tests.support.local_cluster import local_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(120)]


def plan(source, folder):
    return plan_conversion(source, folder, spec=ImageSpec(), samples_per_shard=10, seed=0, minimum_word_count=1)


def processes_of(node):
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def test_a_conversion_goes_on_without_a_node_that_is_cut_off(tmp_path, log_lines):
    write_scenes(tmp_path / "scenes", num_train=300, num_val=10, seed=4, size_px=64)
    stopped = []
    with local_cluster(2) as cluster:

        def progress(record):
            if not stopped:
                stopped.extend(processes_of(cluster.nodes[1]))
                for process in stopped:
                    process.send_signal(signal.SIGSTOP)

        try:
            cut = convert(plan(tmp_path / "scenes", tmp_path / "cut"), num_workers=2, progress=progress)
        finally:
            for process in stopped:
                process.send_signal(signal.SIGKILL)
    whole = convert(plan(tmp_path / "scenes", tmp_path / "whole"), num_workers=0)
    assert (cut.digest, sum("an actor was lost" in line for line in log_lines())) == (whole.digest, 1)
