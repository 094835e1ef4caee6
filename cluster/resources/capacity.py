"""Capacity: how many workers of a job fit on the cluster's nodes, now, when idle, and with autoscaling.

Imports no torch, Ray or MLflow.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cluster.config import ClusterConfig
from cluster.errors import Refusal
from cluster.resources.gcs import Node, NodeGroup, autoscaled_groups, list_nodes


class Capacity(NamedTuple):
    """Number of workers of a job that a cluster can run at once.

    Attributes:
        total: number of workers that fit on the living nodes if these are idle.
        free: number of workers that fit on the resources that are free now.
        autoscaled: number of workers that fit on all nodes that the autoscaler may start.
    """

    total: int
    free: int
    autoscaled: int


class NodeCapacity(NamedTuple):
    """Number of workers of a job that one node can run at once.

    Attributes:
        address: the node's IP address.
        total: number of workers that fit if the node is idle.
        free: number of workers that fit on the resources that are free now.
    """

    address: str
    total: int
    free: int


def check_capacity(config: ClusterConfig, *, flag: str = "--cluster.num-workers") -> Capacity:
    """Check that all workers fit at once on the nodes of this session's cluster, or on nodes that it may start.

    Args:
        config: number of the workers, and their resources.
        flag: the flag that sets the number of workers, for the message.

    Raises:
        Refusal: the workers do not fit, even if the cluster is idle and has grown to its limit.
    """
    return require_capacity(config, list_nodes(), groups=autoscaled_groups(), flag=flag)


def require_capacity(
    config: ClusterConfig,
    nodes: Sequence[Node],
    *,
    groups: Sequence[NodeGroup] = (),
    flag: str = "--cluster.num-workers",
) -> Capacity:
    """Check that all workers fit at once on these nodes, or on those that the autoscaler may start.

    Args:
        config: number of the workers, and their resources.
        nodes: the cluster's living nodes.
        groups: the kinds of nodes that the autoscaler may start.
        flag: the flag that sets the number of workers, for the message.

    Raises:
        Refusal: the workers do not fit, even if the cluster is idle and has grown to its limit.
    """
    needed = resources_per_worker(config)
    capacities = capacity_by_node(nodes, config)
    total = sum(node.total for node in capacities)
    # Not added to ``total``: the autoscaler may have started some of the living nodes, which would count twice.
    autoscaled = sum(_num_fitting(group.resources, needed) * group.max_nodes for group in groups)
    most = max(total, autoscaled)
    if most < config.min_workers:
        has = {name: sum(node.total.get(name, 0.0) for node in nodes) for name in needed}
        verb = "does" if config.min_workers == 1 else "do"
        autoscaler = f", and its autoscaler makes room for {autoscaled}" if groups else ""
        raise Refusal(
            f"{_counted(config.min_workers, 'worker')} of {_listed(needed)} {verb} not fit: the cluster's "
            f"{_counted(len(nodes), 'node')} {'has' if len(nodes) == 1 else 'have'} {_listed(has)}, enough for "
            f"{total}{autoscaler}",
            f"use {f'{flag} {most}' if most else 'less for each worker'}, or a larger cluster",
        )
    return Capacity(total, sum(node.free for node in capacities), autoscaled)


def capacity_by_node(nodes: Iterable[Node], config: ClusterConfig) -> list[NodeCapacity]:
    """Return the number of workers that fit on each node."""
    needed = resources_per_worker(config)
    return [
        NodeCapacity(node.address, _num_fitting(node.total, needed), _num_fitting(node.free, needed)) for node in nodes
    ]


def total_capacity(config: ClusterConfig) -> int:
    """Return the number of workers that fit on the nodes of this session's cluster if these are idle."""
    return sum(node.total for node in capacity_by_node(list_nodes(), config))


def resources_per_worker(config: ClusterConfig) -> dict[str, float]:
    """Return the amounts that Ray reserves for a worker, by the resource's name."""
    gpu = {"GPU": 1.0} if config.use_gpu else {}
    return {"CPU": float(config.cpus_per_worker), **gpu, **config.resources_per_worker}


def _num_fitting(resources: Mapping[str, float], needed: Mapping[str, float]) -> int:
    return int(min(resources.get(name, 0.0) / amount for name, amount in needed.items()))


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
