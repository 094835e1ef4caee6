"""How many workers of a job a cluster holds, by the resources of its nodes. Imports no torch, Ray or MLflow."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cluster.config import ClusterConfig
from cluster.errors import Refusal
from cluster.resources.gcs import Node, NodeGroup, autoscaled_groups, list_nodes


class Capacity(NamedTuple):
    """How many workers a cluster can hold at once: were nothing else on it, now, and with nodes still to be started."""

    total: int
    free: int
    autoscaled: int


class NodeCapacity(NamedTuple):
    """How many workers a node can hold at once: were nothing else on it, and now."""

    address: str
    total: int
    free: int


def require_capacity(
    config: ClusterConfig,
    nodes: Sequence[Node],
    *,
    groups: Sequence[NodeGroup] = (),
    flag: str = "--cluster.num-workers",
) -> Capacity:
    """Check that the nodes that are there, or that the autoscaler may start, can hold all workers at once.

    Args:
        config: of the workers.
        nodes: that are there.
        groups: that the autoscaler may start.
        flag: that sets how many, for the message.

    Raises:
        Refusal: there is no room for them, now or ever.
    """
    wanted = resources_per_worker(config)
    rooms = capacity_by_node(nodes, config)
    fitting = sum(node.total for node in rooms)
    # As many as are started at most, of which some may be among the nodes that are there.
    started = sum(_fitting(group.resources, wanted) * group.max_nodes for group in groups)
    if max(fitting, started) < config.min_workers:
        has = {name: sum(node.total.get(name, 0.0) for node in nodes) for name in wanted}
        autoscaler = f", and its autoscaler makes room for {started}" if groups else ""
        fewer = f"{flag} {max(fitting, started)}" if fitting or started else "less for each worker"
        raise Refusal(
            f"{config.min_workers} workers of {_shown(wanted)} do not fit: the cluster's {len(nodes)} nodes have "
            f"{_shown(has)}, enough for {fitting}{autoscaler}",
            f"use {fewer}, or a larger cluster",
        )
    return Capacity(fitting, sum(node.free for node in rooms), started)


def capacity_by_node(nodes: Iterable[Node], config: ClusterConfig) -> list[NodeCapacity]:
    """Return how many workers each node can hold."""
    wanted = resources_per_worker(config)
    return [NodeCapacity(node.address, _fitting(node.total, wanted), _fitting(node.free, wanted)) for node in nodes]


def resources_per_worker(config: ClusterConfig) -> dict[str, float]:
    """Return what Ray reserves for a worker."""
    gpu = {"GPU": 1.0} if config.use_gpu else {}
    return {"CPU": float(config.cpus_per_worker), **gpu, **config.resources_per_worker}


def _fitting(resources: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    return int(min(resources.get(name, 0.0) / amount for name, amount in wanted.items()))


def _shown(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def check_capacity(config: ClusterConfig, *, flag: str = "--cluster.num-workers") -> Capacity:
    """Check that the nodes that are there, or that the autoscaler may start, can hold all workers at once.

    Args:
        config: of the workers.
        flag: that sets how many, for the message.

    Raises:
        Refusal: they cannot, now or ever.
    """
    return require_capacity(config, list_nodes(), groups=autoscaled_groups(), flag=flag)


def capacity(config: ClusterConfig) -> int:
    """Return how many workers the nodes that are there can hold at once, were nothing else on them."""
    return sum(node.total for node in capacity_by_node(list_nodes(), config))
