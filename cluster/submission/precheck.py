"""Checks of a job before submission, from the client: Python version, capacity and tracker, from the dashboard.

The job itself checks the rest, on every node. Imports no torch, Ray or MLflow.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from cluster.checks.probe import tracker_endpoint
from cluster.checks.result import CheckResult, check_capacity_result, failed
from cluster.config import ClusterConfig
from cluster.resources.capacity import require_capacity
from cluster.submission.dashboard import DashboardSnapshot

OLDEST_PYTHON = (3, 11)
_CONNECT_SECONDS = 1.0


def check_submission(
    dashboard: DashboardSnapshot,
    *,
    workers: ClusterConfig | None = None,
    num_gpus: float = 0.0,
    tracker: str | None = None,
    has_python: bool = False,
) -> list[CheckResult]:
    """Check a job against the cluster that the dashboard reports.

    Args:
        dashboard: snapshot of the cluster, from its dashboard.
        workers: number and resources of the workers that the job needs at once; None if it has none.
        num_gpus: number of GPUs of the job's own process, on one node.
        tracker: address of MLflow for the job; None for the database in its home folder.
        has_python: whether the job's runtime environment contains its own Python.
    """
    checks = [] if has_python or not dashboard.python else [_python(dashboard.python)]
    if workers and dashboard.nodes:
        checks.append(_resources(workers, dashboard))
    if num_gpus and dashboard.nodes:
        checks.append(_own_gpus(num_gpus, dashboard))
    return [*checks, _tracking(tracker, dashboard)] if tracker else checks


def is_cluster_node(dashboard: DashboardSnapshot) -> bool:
    """Return whether this machine is a node of the cluster, by its addresses."""
    return any(_is_own_address(node.address) for node in dashboard.nodes)


def _python(version: str) -> CheckResult:
    found = f"the cluster has Python {version}"
    if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_PYTHON:
        return CheckResult(name="versions", verdict="ok", found=found)
    remedy = "build its image with captioning launch dockerfile, or set image_uri in --runtime-env"
    oldest = ".".join(map(str, OLDEST_PYTHON))
    found = f"{found}, and this code needs {oldest} or newer"
    return CheckResult(name="versions", verdict="failed", found=found, remedy=remedy)


def _resources(workers: ClusterConfig, dashboard: DashboardSnapshot) -> CheckResult:
    try:
        return check_capacity_result(workers, require_capacity(workers, dashboard.nodes))
    except ValueError as error:
        refusal = failed("resources", error)
    if not dashboard.may_grow:
        return refusal
    remedy = "the job first checks whether an autoscaler may start enough nodes"
    return CheckResult(name="resources", verdict="warning", found=refusal.found, remedy=remedy)


def _own_gpus(num_gpus: float, dashboard: DashboardSnapshot) -> CheckResult:
    most = max(node.total.get("GPU", 0.0) for node in dashboard.nodes)
    unit = "GPU" if num_gpus == 1 else "GPUs"
    found = f"the job's own process needs {num_gpus:g} {unit}, and the largest node has {most:g}"
    if most >= num_gpus:
        return CheckResult(name="gpu", verdict="ok", found=found)
    remedy = f"use --num-gpus {most:g}, or larger nodes" if most else "leave out --num-gpus, or use nodes with GPUs"
    return CheckResult(name="gpu", verdict="warning" if dashboard.may_grow else "failed", found=found, remedy=remedy)


def _tracking(uri: str, dashboard: DashboardSnapshot) -> CheckResult:
    parts, endpoint = urlsplit(uri), tracker_endpoint(uri)
    if parts.scheme.partition("+")[0] == "sqlite" and not parts.path.startswith("//"):
        found = f"tracking address {uri} is relative to a folder on this machine"
        remedy = "use the path as the cluster's nodes see it, such as sqlite:////mnt/runs/mlflow.db, or a server"
        return CheckResult(name="tracking", verdict="failed", found=found, remedy=remedy)
    if endpoint and not is_cluster_node(dashboard) and _is_loopback(endpoint[0]) and _answers(endpoint):
        found = f"MLflow at {uri} is on this machine, which is not a node of the cluster"
        remedy = "set --tracking.uri or MLFLOW_TRACKING_URI to the address at which the nodes reach it"
        return CheckResult(name="tracking", verdict="failed", found=found, remedy=remedy)
    return CheckResult(name="tracking", verdict="ok", found=f"{uri}; the job first checks that it answers")


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _answers(endpoint: tuple[str, int]) -> bool:
    try:
        socket.create_connection(endpoint, timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _is_own_address(address: str) -> bool:
    """Return whether an IP address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
