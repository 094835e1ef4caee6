import pytest

from cluster.config import ClusterConfig
from cluster.resources.capacity import capacity_by_node, require_capacity
from cluster.resources.gcs import Node, NodeGroup

NODES = [Node("n", "10.0.0.1", {"CPU": 4.0}, {"CPU": 1.0}), Node("n", "10.0.0.2", {"CPU": 3.0, "GPU": 1.0}, {})]
BIG = NodeGroup("big", {"CPU": 8.0}, 2)


def test_workers_are_counted_on_nodes_and_those_that_may_be_started():
    assert require_capacity(ClusterConfig(num_workers=2, cpus_per_worker=2), NODES, groups=[BIG]) == (3, 0, 8)


def test_every_node_is_told_with_the_workers_that_it_holds():
    assert capacity_by_node(NODES, ClusterConfig()) == [("10.0.0.1", 4, 1), ("10.0.0.2", 3, 0)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            ClusterConfig(num_workers=2, use_gpu=True),
            r"2 workers of 1 CPU, 1 GPU do not fit: the cluster's 2 nodes have 7 CPU, 1 GPU, enough for 1; "
            r"use --cluster.num-workers 1, or a larger cluster",
        ),
        (ClusterConfig(num_workers=1, cpus_per_worker=5), r"enough for 0; use less for each worker, or a larger clust"),
    ],
)
def test_more_than_there_is_is_refused_with_what_there_is(config, message):
    with pytest.raises(ValueError, match=message):
        require_capacity(config, NODES)
