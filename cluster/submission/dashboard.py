"""What a cluster's dashboard tells of it over HTTP, without a session. Imports nothing of Ray."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cluster.resources.gcs import Node

_MOST_NODES = 10_000
_OF_NO_AUTOSCALER = "node_"  # how Ray calls the kind of a node that nobody started for it


class Overview(NamedTuple):
    """A cluster from outside.

    Attributes:
        nodes: that live; empty if the dashboard does not tell.
        python: version on the head; empty likewise.
        may_grow: whether an autoscaler may start more nodes. The dashboard does not tell of which kinds, and says
            nothing at all of Ray's second autoscaler.
    """

    nodes: list[Node]
    python: str
    may_grow: bool


def overview_of(ask: Callable[[str, Mapping[str, Any]], Any]) -> Overview:
    """Put together what a dashboard tells.

    Args:
        ask: returns the data of a path's answer; None if there is none.
    """
    rows = ask("/api/v0/nodes", {"limit": _MOST_NODES, "detail": "true"})
    status = (ask("/api/cluster_status", {}) or {}).get("clusterStatus") or {}
    used = (status.get("loadMetricsReport") or {}).get("usageByNode") or {}
    kinds = ((status.get("autoscalerReport") or {}).get("nodeTypeMapping") or {}).values()
    alive = [row for row in (rows or {}).get("result", {}).get("result", ()) if row["state"] == "ALIVE"]
    return Overview(
        nodes=[_node(row, used.get(row["node_id"]) or used.get(row["node_ip"]) or {}) for row in alive],
        python=(ask("/api/v0/cluster_metadata", {}) or {}).get("pythonVersion", ""),
        may_grow=not kinds or not all(kind.startswith(_OF_NO_AUTOSCALER) for kind in kinds),
    )


def _node(row: Mapping[str, Any], used: Mapping[str, tuple[float, float]]) -> Node:
    total = row["resources_total"]
    # Some names, such as accelerator_type:H100, come in another spelling there, and pass as free.
    free = {name: amount - used.get(name, (0.0, 0.0))[0] for name, amount in total.items()}
    return Node(row["node_id"], row["node_ip"], total, free)
