"""View of a dry run: what would be submitted, and the capacity of the cluster for it."""

import logging
from typing import TYPE_CHECKING

from cluster.config import ClusterConfig
from cluster.resources.capacity import capacity_by_node
from cluster.resources.gcs import Node
from cluster.submission.archive import archive_size
from cluster.submission.plan import SubmissionPlan
from cluster.submission.submit import JobRequest
from jobs.console.output import write_json
from jobs.console.tables import show_table

if TYPE_CHECKING:
    from cluster.checks.rehearsal import Rehearsal

logger = logging.getLogger(__name__)


def describe(
    request: JobRequest, plan: SubmissionPlan | None, *, workers: ClusterConfig | None, as_json: bool = False
) -> None:
    """Log what would be submitted, and where it would run.

    Args:
        request: request that would be submitted.
        plan: effect of the request on the cluster; None if no cluster was named.
        workers: workers that the job needs; None if it does not train.
        as_json: whether to also write a JSON document.
    """
    num_bytes = archive_size(request.archive)
    job_id = plan.job.id if plan else f"{request.name}-<n>"
    _show_request(request, plan, job_id=job_id, num_bytes=num_bytes)
    if plan:
        _show_cluster(plan, workers)
    if workers:
        job, _, flags = request.command.partition(" ")
        logger.info("to estimate the duration on the cluster: captioning submit %s %s --dry-run", job, flags)
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
    where = plan.address if plan else "no cluster (none was named; use --address)"
    logger.info("would %s %s to %s", verb, job_id, where)
    logger.info("command: %s", request.entrypoint)
    logger.info(
        "code:    %d files in %s, %.1f MiB zipped, commit %s%s",
        len(archive.files),
        archive.folder,
        num_bytes / 2**20,
        archive.commit[:12],
        " with uncommitted changes" if archive.is_dirty == "true" else "",
    )
    for what in archive.left_out:
        logger.info("left out: %s", what)
    logger.info("runtime environment: %s", request.runtime_env)


def _show_cluster(plan: SubmissionPlan, workers: ClusterConfig | None) -> None:
    nodes = plan.dashboard.nodes
    fits = [f"{one.free}/{one.total}" for one in capacity_by_node(nodes, workers)] if workers else [""] * len(nodes)
    rows = [
        (node.address, _share(node, "CPU"), _share(node, "GPU"), fit) for node, fit in zip(nodes, fits, strict=True)
    ]
    show_table("Capacity, free/total", ("node", "CPUs", "GPUs", "workers"), rows)
    checks = [(check.name, check.verdict, check.found, check.remedy) for check in plan.checks]
    show_table("Checks before submission", ("check", "verdict", "found", "remedy"), checks)


def _share(node: Node, resource: str) -> str:
    return f"{node.free.get(resource, 0.0):g}/{node.total.get(resource, 0.0):g}"


def show_rehearsal(rehearsal: "Rehearsal") -> None:
    """Show how many workers fit on each node, and the reason if no step was measured."""
    rows = [(node.address, f"{node.free}", f"{node.total}") for node in rehearsal.nodes]
    show_table("Capacity in workers", ("node", "free", "total"), rows)
    if rehearsal.why_not:
        logger.warning("no estimate: %s", rehearsal.why_not)
