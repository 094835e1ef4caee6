"""Plan of a submission: what a request would do on a cluster, and whether it can work there."""

from collections.abc import Sequence
from typing import NamedTuple

from cluster.checks.result import CheckResult
from cluster.config import ClusterConfig, TrackerConfig
from cluster.submission.dashboard import DashboardSnapshot
from cluster.submission.job_server import JobServer
from cluster.submission.precheck import check_submission
from cluster.submission.submit import JobRequest, ResolvedJob, resolve_job


class SubmissionPlan(NamedTuple):
    """What submitting a request would do on a cluster.

    Attributes:
        address: address of the cluster's dashboard.
        job: job that would start, or live job that would be followed.
        dashboard: nodes and Python version of the cluster.
        checks: results of the checks of a new job; empty for a live job.
    """

    address: str
    job: ResolvedJob
    dashboard: DashboardSnapshot
    checks: Sequence[CheckResult]


def plan_submission(
    server: JobServer, request: JobRequest, *, workers: ClusterConfig | None, tracking: TrackerConfig | None
) -> SubmissionPlan:
    """Find the job that a request would start or follow on the cluster, and check a new job.

    Args:
        server: job server of the cluster.
        request: the request; nothing is sent.
        workers: workers that the job needs; None if it does not train.
        tracking: tracker that the job uses; None if it uses none.

    Raises:
        ValueError: a live job with other settings has the name.
    """
    job, dashboard = resolve_job(request, server.jobs()), server.dashboard()
    checks = check_submission(
        dashboard,
        workers=workers,
        num_gpus=request.num_gpus,
        tracker=tracking and (tracking.uri or request.runtime_env["env_vars"].get("MLFLOW_TRACKING_URI")),
        has_python=any(name in request.runtime_env for name in ("conda", "image_uri")),
    )
    return SubmissionPlan(server.address, job, dashboard, checks if job.is_new else ())
