"""Snapshot of a cluster as its dashboard reports it over HTTP, without a Ray session. Does not import Ray."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cluster.resources.gcs import Node

_MOST_NODES = 10_000
_NOT_AUTOSCALED = "node_"  # prefix of the node type that Ray reports for a node that no autoscaler started


class DashboardSnapshot(NamedTuple):
    """A cluster at one moment, as far as its dashboard reports it.

    Attributes:
        nodes: the living nodes; empty if the dashboard does not report them.
        python: version of Python on the head node, such as 3.11.7; empty if the dashboard does not report it.
        may_grow: whether an autoscaler may start more nodes. The dashboard does not report which nodes, and reports
            nothing at all about Ray's autoscaler v2; then this is True.
    """

    nodes: list[Node]
    python: str
    may_grow: bool


def read_dashboard(get: Callable[[str, Mapping[str, Any]], Any]) -> DashboardSnapshot:
    """Return what a dashboard reports of its cluster.

    Args:
        get: function that takes a path and its query parameters, and returns the data of the response, or None.
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
    # Some resources, such as accelerator_type:H100, have another spelling in the usage report, so they count as free.
    free = {name: amount - used.get(name, (0.0, 0.0))[0] for name, amount in total.items()}
    return Node(row["node_id"], row["node_ip"], total, free)
