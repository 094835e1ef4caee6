"""Submit a job to a Ray cluster, follow its log, and exit with its exit code.

Write flags of submit before JOB, and the arguments of captioning JOB after it. They are checked before anything is
sent. --print-config prints the settings of both, JOB's as the second YAML document; after JOB, only those of JOB.

Code: the packages of the checkout around the current folder, or else the installed ones that run this command, are
uploaded, with uncommitted changes. The packages that they need must be installed on the cluster.

Paths: write them as the cluster's nodes see them, such as /mnt/coco or s3://bucket/coco-shards. A relative path may
only name a file of at most 1 MiB in the current folder, such as that of --config or --search, which is uploaded too.

Environment: CAPTIONING_HOME (or --home) is required. CAPTIONING_HOME, CAPTIONING_LOG_LEVEL, MLFLOW_TRACKING_URI and the
variables that --env names are forwarded if they are set here. Variables that look like secrets are refused.

Job ids are NAME-1, NAME-2, and so on. While a job runs, the same command follows it instead of starting another. Ctrl-C
stops following, not the job.

Examples:
    export RAY_API_SERVER_ADDRESS=http://head:8265 CAPTIONING_HOME=/mnt/runs
    captioning submit convert /mnt/coco /mnt/coco-shards
    captioning submit --retries 3 train coco --shards /mnt/coco-shards --name big --cluster.num-workers 8
    captioning submit --no-wait tune --shards /mnt/coco-shards --name search --search search.yaml
    captioning submit --dry-run train --shards /mnt/coco-shards --name big    # show the request, check the cluster
"""

import dataclasses
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from captioning.bounds import raise_mistakes
from cluster.config import ClusterConfig, TrainRun
from cluster.settings import as_plain
from cluster.submission.paths import found_here, travelling_files
from jobs.cli import BAD_INPUT, INTERRUPTED, JOBS, find_job
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.parsing import parse_as_written

if TYPE_CHECKING:
    from cluster.submission.job import JobState
    from cluster.submission.job_server import JobServer
    from cluster.submission.plan import SubmissionPlan
    from cluster.submission.submit import JobRequest

logger = logging.getLogger(__name__)

_NOT_ON_A_CLUSTER = ("submit", "jobs", "status", "logs", "stop", "ui", "completion")


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmitJob:
    """The job to submit, and how to run it."""

    job: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="JOB")]
    """Job to run on the cluster, such as train; captioning --help lists them."""
    arguments: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[ARGUMENT ...]")] = ()
    """Arguments of the job, as for captioning JOB."""
    address: str | None = None
    """Address of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""
    name: str | None = None
    """Name of the job on the cluster; if not given, the --name of a training run or search, or else JOB."""
    working_dir: Path | None = None
    """Folder of the code to upload; if not given, the checkout around the current folder, or the installed packages."""
    runtime_env: Path | None = None
    """YAML file of a Ray runtime environment (pip, uv, conda, env_vars or image_uri), for what the cluster lacks.
    Without it, the job has what is installed there."""
    env: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Name of an environment variable to forward to the job; may be repeated."""
    num_gpus: float = 0.0
    """GPUs for the job's own process (evaluate, caption, promote); training workers take --cluster.use-gpu instead."""
    retries: int = 0
    """Number of times to submit the job again if it fails while it is followed, but not because of bad input."""
    wait: bool = True
    """Follow the job to its end; --no-wait exits once the job is submitted."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        if not 0 <= self.num_gpus < math.inf:
            yield f"num_gpus {self.num_gpus} is not a number of GPUs; use 0 or more"
        if self.retries < 0:
            yield f"retries {self.retries} is negative; use 0 or more"
        if self.retries and not self.wait:
            yield ("--retries has no effect on a job that is not followed; leave out --retries or --no-wait")


def main(invocation: Invocation[SubmitJob]) -> None:
    """Check the job's command line, submit the job and follow it."""
    submission = invocation.settings
    job_invocation = parse_as_written(*_submitted(submission))
    request = _request(submission, job_invocation)
    if invocation.dry_run:
        _describe(submission, request, job_invocation, as_json=invocation.json)
        return
    from cluster.checks.result import require
    from cluster.submission.job_server import JobServer

    server = JobServer(submission.address)
    for what in request.archive.left_out:
        logger.info("left out: %s", what)
    require(_plan(server, request, job_invocation).checks)
    job = _run(server, request, submission, as_json=invocation.json)
    if job:
        _conclude(server, job, job_invocation, as_json=invocation.json)


def _submitted(submission: SubmitJob) -> tuple[Job[Any], Sequence[str]]:
    """Return the job to submit and its arguments."""
    if submission.job not in JOBS or submission.job in _NOT_ON_A_CLUSTER:
        known = ", ".join(name for name in JOBS if name not in _NOT_ON_A_CLUSTER)
        raise ValueError(f"{submission.job} cannot be submitted; use one of {known}")
    return find_job(submission.job), submission.arguments


def _conclude(server: "JobServer", job: "JobState", invocation: Invocation[Any], *, as_json: bool) -> None:
    """Log how a job ended, and exit with its exit code."""
    from cluster.submission.precheck import is_cluster_node
    from cluster.submission.submit import exit_code

    code = exit_code(job)
    if as_json:
        write_json({"id": job.id, "status": job.status, "exit_code": code})
    if not code:
        logger.info("job %s is done", job.id)
        return
    path = found_here(invocation, job.message) if code == BAD_INPUT else None
    hint = (
        ""
        if not path or is_cluster_node(server.dashboard())
        else f" ({path} exists on this machine, which is not a node of the cluster; give a path that its nodes see)"
    )
    logger.error("error: job %s ended as %s: %s%s", job.id, job.status, job.message, hint)
    sys.exit(code)


def _mark_job(arguments: Sequence[str]) -> list[str]:
    """Insert ``--`` before the job, so that flags after it are not parsed as flags of this command."""
    names = [
        one.name.replace("_", "-")
        for one in dataclasses.fields(SubmitJob)
        if one.name not in ("job", "arguments", "wait")
    ]
    with_values = {f"--{name}" for name in (*names, "config")}
    is_value = False
    for number, argument in enumerate(arguments):
        if is_value:
            is_value = False
        elif argument == "--":
            break
        elif argument.startswith("-"):
            is_value = argument.replace("_", "-") in with_values
        else:
            return [*arguments[:number], "--", *arguments[number:]]
    return list(arguments)


def _request(submission: SubmitJob, invocation: Invocation[Any]) -> "JobRequest":
    from cluster.submission.archive import plan_archive
    from cluster.submission.runtime_env import forwarded_variables, read_runtime_env
    from cluster.submission.submit import build_request

    training = _training(invocation)
    own_name = training.name if training else submission.job
    # A dry run on the cluster needs a name and settings of its own, or submitting the real job would follow it.
    is_dry = {"dry_run": True} if invocation.dry_run else {}
    return build_request(
        submission.name or (f"{own_name}-dry-run" if is_dry else own_name),
        [submission.job, *submission.arguments],
        settings=as_plain(invocation.settings) | is_dry,
        archive=plan_archive(submission.working_dir, inputs=list(travelling_files(invocation))),
        runtime_env=read_runtime_env(submission.runtime_env) if submission.runtime_env else {},
        variables=forwarded_variables(submission.env, os.environ),
        num_gpus=submission.num_gpus,
    )


def _plan(server: "JobServer", request: "JobRequest", invocation: Invocation[Any]) -> "SubmissionPlan":
    """Return the job that a request would start or follow on the cluster, and the checks of a new job."""
    from cluster.submission.plan import plan_submission

    tracking = getattr(invocation.settings, "tracking", None)
    return plan_submission(server, request, workers=_workers(invocation), tracking=tracking)


def _training(invocation: Invocation[Any]) -> TrainRun | None:
    """Return the settings of a job that trains; None for others, such as ``check``, which has the same settings."""
    from jobs.check import CheckRun

    settings = invocation.settings
    return settings if isinstance(settings, TrainRun) and not isinstance(settings, CheckRun) else None


def _workers(invocation: Invocation[Any]) -> ClusterConfig | None:
    """Return the workers that a job needs, if it trains."""
    training = _training(invocation)
    return training.cluster if training else None


def _describe(submission: SubmitJob, request: "JobRequest", invocation: Invocation[Any], *, as_json: bool) -> None:
    """Log what would be submitted; if a cluster is named, also what would happen there."""
    from cluster.checks.result import require
    from cluster.submission.address import ADDRESS_VARIABLE
    from cluster.submission.job_server import JobServer
    from jobs.console.dry_run_view import describe

    address = submission.address or os.environ.get(ADDRESS_VARIABLE)
    plan = _plan(JobServer(address), request, invocation) if address else None
    describe(request, plan, workers=_workers(invocation), as_json=as_json)
    if plan:
        require(plan.checks)


def _run(server: "JobServer", request: "JobRequest", submission: SubmitJob, *, as_json: bool) -> "JobState | None":
    """Submit and follow the job, with retries; return its last state, or None with ``--no-wait``."""
    from cluster.submission.submit import is_worth_a_retry, submit

    for left in range(submission.retries, -1, -1):
        resolved = submit(server, request)
        logger.info("%s job %s", "submitted" if resolved.is_new else "following the live", resolved.id)
        if not submission.wait:
            log_next("status", resolved.id, "--watch")
            if as_json:
                write_json({"id": resolved.id, "is_new": resolved.is_new})
            break
        job = _follow(server, resolved.id)
        if not left or not is_worth_a_retry(job):
            return job
        logger.warning("job %s failed; submitting it again, retries left after that: %d", job.id, left - 1)
    return None


def _follow(server: "JobServer", job_id: str) -> "JobState":
    from jobs.logs import show_line

    try:
        return server.follow(job_id, lambda line: show_line(line, sys.stderr))
    except KeyboardInterrupt:
        logger.warning(
            "job %s is still running; see its log with captioning logs %s --follow, its progress with captioning "
            "status %s --watch; stop it with captioning stop %s",
            *[job_id] * 4,
        )
        sys.exit(INTERRUPTED)


JOB = Job(
    name="submit",
    settings=SubmitJob,
    run=main,
    description=__doc__,
    loads=("ray",),
    prepare=_mark_job,
    submitted=_submitted,
)
