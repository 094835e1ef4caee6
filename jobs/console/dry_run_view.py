"""A dry run in the terminal: what would be submitted, and the capacity of the cluster for it."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cluster.checks.result import CheckResult
from cluster.config import ClusterConfig
from cluster.resources.capacity import capacity_by_node
from cluster.resources.gcs import Node
from cluster.submission.archive import archive_size
from cluster.submission.dashboard import DashboardSnapshot
from cluster.submission.submit import JobRequest, ResolvedJob
from jobs.console.output import write_json
from jobs.console.tables import show_table

if TYPE_CHECKING:
    from cluster.checks.rehearsal import Rehearsal

logger = logging.getLogger(__name__)


class SubmissionPlan(NamedTuple):
    """What submitting a request would do on a cluster.

    Attributes:
        address: address of the cluster's dashboard.
        job: the job that would start, or the live one that would be followed.
        dashboard: the cluster's nodes and Python version.
        checks: checks before a new job; none for a live one.
    """

    address: str
    job: ResolvedJob
    dashboard: DashboardSnapshot
    checks: Sequence[CheckResult]


def describe(
    request: JobRequest, plan: SubmissionPlan | None, *, workers: ClusterConfig | None, as_json: bool = False
) -> None:
    """Say what would be sent, and where it would run.

    Args:
        request: the request that would be sent.
        plan: what the request would do on the cluster; None if no cluster was named.
        workers: workers that the job needs at once; None if it does not train.
        as_json: whether to write it as JSON too.
    """
    num_bytes = archive_size(request.archive)
    job_id = plan.job.id if plan else f"{request.name}-<n>"
    _show_request(request, plan, job_id=job_id, num_bytes=num_bytes)
    if plan:
        _show_cluster(plan, workers)
    if workers:
        job, _, flags = request.command.partition(" ")
        logger.info("captioning submit %s %s --dry-run measures a step there, and tells how long it takes", job, flags)
    if not as_json:
        return
    archive = request.archive
    files = [name for name, _ in archive.files]
    code = {"folder": archive.folder, "files": files, "num_bytes": num_bytes, "left_out": archive.left_out}
    sent = {"id": job_id, "entrypoint": request.entrypoint, "runtime_env": request.runtime_env}
    cluster = plan and {
        "nodes": [{"address": node.address, "total": node.total, "free": node.free} for node in plan.dashboard.nodes],
        "python": plan.dashboard.python,
        "workers": [one._asdict() for one in capacity_by_node(plan.dashboard.nodes, workers)] if workers else [],
        "checks": plan.checks,
    }
    address = plan.address if plan else None
    write_json({"address": address, **sent, "metadata": request.metadata, "code": code, "cluster": cluster})


def _show_request(request: JobRequest, plan: SubmissionPlan | None, *, job_id: str, num_bytes: int) -> None:
    archive = request.archive
    verb = "follow the live job" if plan and not plan.job.is_new else "submit job"
    where = plan.address if plan else "no cluster, for none was named"
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


def _show_cluster(plan: SubmissionPlan, workers: ClusterConfig | None) -> None:
    nodes = plan.dashboard.nodes
    fits = [f"{one.free}/{one.total}" for one in capacity_by_node(nodes, workers)] if workers else [""] * len(nodes)
    rows = [
        (node.address, _share(node, "CPU"), _share(node, "GPU"), fit) for node, fit in zip(nodes, fits, strict=True)
    ]
    show_table("Room, now and at most", ("node", "CPUs", "GPUs", "workers"), rows)
    checks = [(check.name, check.verdict, check.found, check.remedy) for check in plan.checks]
    show_table("Checks from here", ("what", "verdict", "found", "remedy"), checks)


def _share(node: Node, resource: str) -> str:
    return f"{node.free.get(resource, 0.0):g}/{node.total.get(resource, 0.0):g}"


def show_rehearsal(rehearsal: "Rehearsal") -> None:
    """Show how many workers each node holds, and why nothing was measured, if so."""
    rows = [(node.address, f"{node.free}", f"{node.total}") for node in rehearsal.nodes]
    show_table("Room for workers", ("node", "now", "at most"), rows)
    if rehearsal.why_not:
        logger.warning("no estimate: %s", rehearsal.why_not)
