"""What can be told of a job before it is sent, from outside its cluster; the job itself asks the rest, on every node.

Imports no torch, Ray or MLflow.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from cluster.checks.probe import tracker_of
from cluster.checks.result import Check, check_capacity_result, failed
from cluster.config import ClusterConfig, without_credentials
from cluster.resources.capacity import require_capacity
from cluster.submission.dashboard import Overview

OLDEST_PYTHON = (3, 11)
_CONNECT_SECONDS = 1.0


def check_outside(
    overview: Overview,
    *,
    workers: ClusterConfig | None = None,
    num_gpus: float = 0.0,
    tracker: str | None = None,
    has_python: bool = False,
) -> list[Check]:
    """Check a job against what the cluster's dashboard tells.

    Args:
        overview: that it gives.
        workers: that the job needs at once, if it trains.
        num_gpus: that its own process needs, on one node.
        tracker: address of MLflow that it is given; None for the database in its home folder.
        has_python: whether its runtime environment brings a Python of its own.
    """
    checks = [] if has_python or not overview.python else [_python(overview.python)]
    if workers and overview.nodes:
        checks.append(_resources(workers, overview))
    if num_gpus and overview.nodes:
        checks.append(_own_gpus(num_gpus, overview))
    return [*checks, _tracking(tracker, overview)] if tracker else checks


def is_member(overview: Overview) -> bool:
    """Return whether this machine is a node of the cluster, by its addresses."""
    return any(_is_here(node.address) for node in overview.nodes)


def _python(version: str) -> Check:
    found = f"the cluster has Python {version}"
    if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_PYTHON:
        return Check(name="versions", verdict="ok", found=found)
    remedy = "build its image by captioning launch dockerfile, or name one as image_uri in --runtime-env"
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Check(name="versions", verdict="failed", found=f"{found}, and this code needs {oldest}", remedy=remedy)


def _resources(workers: ClusterConfig, overview: Overview) -> Check:
    try:
        return check_capacity_result(workers, require_capacity(workers, overview.nodes))
    except ValueError as error:
        refusal = failed("resources", error)
    if not overview.may_grow:
        return refusal
    remedy = "the job looks whether an autoscaler may start more, before anything else"
    return Check(name="resources", verdict="warning", found=refusal.found, remedy=remedy)


def _own_gpus(wanted: float, overview: Overview) -> Check:
    most = max(node.total.get("GPU", 0.0) for node in overview.nodes)
    found = f"the job's own process wants {wanted:g} GPUs, and the node with most has {most:g}"
    if most >= wanted:
        return Check(name="gpu", verdict="ok", found=found)
    remedy = f"use --num-gpus {most:g} or other nodes" if most else "leave out --num-gpus, or use other nodes"
    return Check(name="gpu", verdict="warning" if overview.may_grow else "failed", found=found, remedy=remedy)


def _tracking(uri: str, overview: Overview) -> Check:
    shown = without_credentials(uri)
    parts, place = urlsplit(uri), tracker_of(uri)
    if parts.scheme == "sqlite" and not parts.path.startswith("//"):
        found = f"tracking address {shown} is relative to a folder of this machine"
        remedy = "name the file as the cluster's nodes see it, such as sqlite:////mnt/runs/mlflow.db, or use a server"
        return Check(name="tracking", verdict="failed", found=found, remedy=remedy)
    if place and not is_member(overview) and _is_loopback(place[0]) and _answers(place):
        found = f"MLflow at {shown} is on this machine, which is no node of the cluster"
        remedy = "give the address by which the nodes reach it as --tracking.uri or MLFLOW_TRACKING_URI"
        return Check(name="tracking", verdict="failed", found=found, remedy=remedy)
    return Check(name="tracking", verdict="ok", found=f"{shown}, which the job tries to reach before anything else")


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _is_here(address: str) -> bool:
    """Return whether an address of the internet protocol is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
