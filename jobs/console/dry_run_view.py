"""What people see of a job that is only to be looked at before it is submitted."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cluster.checks.result import CheckResult
from cluster.config import ClusterConfig
from cluster.resources.capacity import capacity_by_node
from cluster.resources.gcs import Node
from cluster.submission.archive import archive_size
from cluster.submission.dashboard import DashboardSnapshot
from cluster.submission.request import JobRequest, ResolvedJob
from jobs.console.output import write_json
from jobs.console.tables import show_table

if TYPE_CHECKING:
    from cluster.checks.rehearsal import Rehearsal

logger = logging.getLogger(__name__)


class Prospect(NamedTuple):
    """Where a request would come to, and what is known of its cluster.

    Attributes:
        address: address of the cluster's job server.
        job: a new job, or the live one of its name.
        dashboard: the cluster, as its dashboard reports it.
        checks: results of the checks of a new job.
    """

    address: str
    job: ResolvedJob
    dashboard: DashboardSnapshot
    checks: Sequence[CheckResult]


def describe(
    request: JobRequest, prospect: Prospect | None, *, workers: ClusterConfig | None, as_json: bool = False
) -> None:
    """Say what would be sent, and where it would run.

    Args:
        request: that would be sent.
        prospect: at the cluster; None if none was named.
        workers: that the job needs at once, if it trains.
        as_json: write it as JSON as well.
    """
    num_bytes = archive_size(request.archive)
    job_id = prospect.job.id if prospect else f"{request.name}-<n>"
    _show_request(request, prospect, job_id=job_id, num_bytes=num_bytes)
    if prospect:
        _show_cluster(prospect, workers)
    if workers:
        job, _, flags = request.command.partition(" ")
        logger.info("captioning submit %s %s --dry-run measures a step there, and tells how long it takes", job, flags)
    if not as_json:
        return
    archive = request.archive
    files = [name for name, _ in archive.files]
    code = {"folder": archive.folder, "files": files, "num_bytes": num_bytes, "left_out": archive.left_out}
    sent = {"id": job_id, "entrypoint": request.entrypoint, "runtime_env": request.runtime_env}
    cluster = prospect and {
        "nodes": [
            {"address": node.address, "total": node.total, "free": node.free} for node in prospect.dashboard.nodes
        ],
        "python": prospect.dashboard.python,
        "workers": [room._asdict() for room in capacity_by_node(prospect.dashboard.nodes, workers)] if workers else [],
        "checks": prospect.checks,
    }
    address = prospect.address if prospect else None
    write_json({"address": address, **sent, "metadata": request.metadata, "code": code, "cluster": cluster})


def _show_request(request: JobRequest, prospect: Prospect | None, *, job_id: str, num_bytes: int) -> None:
    archive = request.archive
    verb = "follow the live job" if prospect and not prospect.job.is_new else "submit job"
    where = prospect.address if prospect else "no cluster, for none was named"
    logger.info("would %s %s to %s", verb, job_id, where)
    logger.info("command: %s", request.entrypoint)
    logger.info(
        "code:    %d files of %s, %.1f MiB zipped, commit %s%s",
        len(archive.files),
        archive.folder,
        num_bytes / 2**20,
        archive.commit[:12],
        " with uncommitted changes" if archive.is_dirty == "true" else "",
    )
    for what in archive.left_out:
        logger.info("left out: %s", what)
    logger.info("with:    %s", request.runtime_env)


def _show_cluster(prospect: Prospect, workers: ClusterConfig | None) -> None:
    nodes = prospect.dashboard.nodes
    rooms = [f"{room.free}/{room.total}" for room in capacity_by_node(nodes, workers)] if workers else [""] * len(nodes)
    rows = [
        (node.address, _share(node, "CPU"), _share(node, "GPU"), room) for node, room in zip(nodes, rooms, strict=True)
    ]
    show_table("Room, now and at most", ("node", "CPUs", "GPUs", "workers"), rows)
    checks = [(check.name, check.verdict, check.found, check.remedy) for check in prospect.checks]
    show_table("Checks from here", ("what", "verdict", "found", "remedy"), checks)


def _share(node: Node, resource: str) -> str:
    return f"{node.free.get(resource, 0.0):g}/{node.total.get(resource, 0.0):g}"


def show_rehearsal(rehearsal: "Rehearsal") -> None:
    """Show how many workers each node holds, and why nothing was measured, if so."""
    rows = [(node.address, f"{node.free}", f"{node.total}") for node in rehearsal.nodes]
    show_table("Room for workers", ("node", "now", "at most"), rows)
    if rehearsal.why_not:
        logger.warning("no estimate: %s", rehearsal.why_not)
