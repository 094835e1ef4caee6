"""Snapshot of a cluster as its dashboard reports it over HTTP, without a session. Imports nothing of Ray."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cluster.resources.gcs import Node

_MOST_NODES = 10_000
_NOT_AUTOSCALED = "node_"  # how the names of kinds begin that Ray gives to nodes which no autoscaler started


class DashboardSnapshot(NamedTuple):
    """A cluster at one moment, as far as its dashboard reports it.

    Attributes:
        nodes: the living nodes; empty if they are not reported.
        python: version of Python on the head, such as 3.11.7; empty if it is not reported.
        may_grow: whether an autoscaler may start more nodes. The dashboard does not report their kinds, and nothing at
            all of Ray's second autoscaler.
    """

    nodes: list[Node]
    python: str
    may_grow: bool


def read_dashboard(get: Callable[[str, Mapping[str, Any]], Any]) -> DashboardSnapshot:
    """Ask a dashboard for what it reports of its cluster.

    Args:
        get: a function of a path and its parameters that returns the data of the response, or None.
    """
    rows = get("/api/v0/nodes", {"limit": _MOST_NODES, "detail": "true"})
    status = (get("/api/cluster_status", {}) or {}).get("clusterStatus") or {}
    used = (status.get("loadMetricsReport") or {}).get("usageByNode") or {}
    kinds = ((status.get("autoscalerReport") or {}).get("nodeTypeMapping") or {}).values()
    alive = [row for row in (rows or {}).get("result", {}).get("result", ()) if row["state"] == "ALIVE"]
    return DashboardSnapshot(
        nodes=[_node(row, used.get(row["node_id"]) or used.get(row["node_ip"]) or {}) for row in alive],
        python=(get("/api/v0/cluster_metadata", {}) or {}).get("pythonVersion", ""),
        may_grow=not kinds or not all(kind.startswith(_NOT_AUTOSCALED) for kind in kinds),
    )


def _node(row: Mapping[str, Any], used: Mapping[str, tuple[float, float]]) -> Node:
    total = row["resources_total"]
    # Some names, such as accelerator_type:H100, come in another spelling there, and pass as free.
    free = {name: amount - used.get(name, (0.0, 0.0))[0] for name, amount in total.items()}
    return Node(row["node_id"], row["node_ip"], total, free)
