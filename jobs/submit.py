"""Run a job on a Ray cluster by its job server: all that captioning JOB takes, checked here before anything is sent.

This command's own flags come before JOB; all after it are the job's.

The packages of the checkout around the current folder are sent as they are, with uncommitted changes, and run in what
is installed on the cluster. Paths are the cluster's: write them as its nodes see them, such as /mnt/shards or
s3://bucket/shards. A relative path may only name a file up to 1 MiB, such as that of --config or --search, which is
sent too. --home, or CAPTIONING_HOME, must be given. CAPTIONING_HOME, CAPTIONING_LOG_LEVEL, MLFLOW_TRACKING_URI and what
--env names travel if they are set here; secrets do not.

The job is called NAME-1, NAME-2, ...: the same command again follows the live one instead of starting another. Its log
is followed, and its exit code is this command's; Ctrl-C only ends the following.

Examples:
    export RAY_API_SERVER_ADDRESS=http://head:8265 CAPTIONING_HOME=/mnt/runs
    captioning submit convert /mnt/coco /mnt/shards
    captioning submit --retries 3 train coco --shards /mnt/shards --name big --cluster.num-workers 8
    captioning submit --no-wait tune --shards /mnt/shards --name search --search search.yaml
    captioning submit --dry-run train --shards /mnt/shards --name big       # what would be sent
"""

import dataclasses
import importlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from cluster.config import TrainRun
from jobs.cli import INTERRUPTED, JOBS, run_job
from jobs.output import plain, write_json
from jobs.parsing import Invocation, parse, parsed_by

if TYPE_CHECKING:
    from cluster.job_server import JobServer
    from cluster.job_state import JobState
    from cluster.submission import JobRequest

logger = logging.getLogger(__name__)

_NOT_ON_A_CLUSTER = ("submit", "jobs", "status", "logs", "stop")
_URL_FORM = re.compile(r"[a-z][a-z0-9+]*:/")


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmitJob:
    """Where and how a job is run."""

    job: tyro.conf.Positional[str]
    """The job, and all that it takes."""
    address: str | None = None
    """Of Ray's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS if not given."""
    name: str | None = None
    """Of the job on the cluster; the --name of a training or search, else the job's own, if not given."""
    working_dir: Path | None = None
    """Checkout with the code; the one around the current folder, or that folder, if not given."""
    runtime_env: Path | None = None
    """YAML file with pip, uv, conda, env_vars or image_uri: what the job needs beside what is installed there."""
    env: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A variable of this environment to take along; may be given again."""
    retries: int = 0
    """Times that a job that failed is submitted again while it is followed."""
    wait: bool = True
    """Follow the job to its end; --no-wait ends as soon as it is submitted."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.retries < 0:
            raise ValueError(f"{self.retries} retries cannot be; use 0 or more")
        if self.retries and not self.wait:
            raise ValueError("nobody submits a job again that is not followed; leave out --retries or --no-wait")


def main(arguments: Sequence[str]) -> None:
    """Parse both command lines, send the job and follow it."""
    own, command = _split(arguments)
    default = SubmitJob(job=tyro.MISSING)
    invocation = parse(SubmitJob, [*own, *command[:1]], default=default, job="submit", description=__doc__ or "")
    submission = invocation.settings
    if submission.job not in JOBS or submission.job in _NOT_ON_A_CLUSTER:
        known = ", ".join(name for name in JOBS if name not in _NOT_ON_A_CLUSTER)
        raise ValueError(f"{submission.job} is no job to submit; use one of {known}")
    request = _request(submission, command)
    if invocation.dry_run:
        _describe(submission, request, as_json=invocation.json)
        return
    from cluster.job_server import JobServer

    server = JobServer(submission.address)
    for what in request.archive.left_out:
        logger.info("left out: %s", what)
    job = _run(server, request, submission, as_json=invocation.json)
    if job is None:
        return
    from cluster.submission import exit_code

    code = exit_code(job)
    if invocation.json:
        write_json({"id": job.id, "status": job.status, "exit_code": code})
    if code:
        logger.error("error: job %s ended as %s: %s", job.id, job.status, job.message)
        sys.exit(code)
    logger.info("job %s is done", job.id)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part this command's flags from the job and what follows it."""
    names = [one.name.replace("_", "-") for one in dataclasses.fields(SubmitJob) if one.name not in ("job", "wait")]
    with_values = {f"--{name}" for name in (*names, "config")}
    is_value = False
    for number, argument in enumerate(arguments):
        if is_value:
            is_value = False
        elif argument.startswith("-"):
            is_value = argument.replace("_", "-") in with_values
        else:
            return list(arguments[:number]), list(arguments[number:])
    return list(arguments), []


def _request(submission: SubmitJob, command: Sequence[str]) -> "JobRequest":
    from cluster.archive import plan_archive
    from cluster.submission import build_request, carried_variables, read_runtime_env

    told = parsed_by(importlib.import_module(f"jobs.{submission.job}").main, command[1:])
    own_name = told.settings.name if isinstance(told.settings, TrainRun) else None
    return build_request(
        submission.name or own_name or submission.job,
        command,
        settings=plain(told.settings),
        archive=plan_archive(submission.working_dir, inputs=list(_inputs(told))),
        runtime_env=read_runtime_env(submission.runtime_env) if submission.runtime_env else {},
        variables=carried_variables(submission.env, os.environ),
    )


def _inputs(told: Invocation[Any]) -> Iterator[Path]:
    """Yield the files that travel with a job.

    Raises:
        ValueError: a path is relative, and no small file of this folder.
    """
    from cluster.archive import INPUT_LIMIT_MIB

    for name, path in _paths(told):
        if path.is_absolute() or _URL_FORM.match(f"{path}"):
            continue
        is_inside = ".." not in path.parts
        if not (is_inside and path.is_file() and path.stat().st_size <= INPUT_LIMIT_MIB * 2**20):
            how = "--home FOLDER or CAPTIONING_HOME" if name == "home" else f"such as /mnt/{path.name}"
            raise ValueError(
                f"{name} {path} is relative to a folder of this machine; name it as the cluster's nodes see it, {how} "
                f"(only files in the current folder, up to {INPUT_LIMIT_MIB} MiB, travel with a job)"
            )
        yield path


def _paths(settings: Any, name: str = "") -> Iterator[tuple[str, Path]]:  # noqa: ANN401  any tree of settings
    """Yield every path of a tree of settings with the name of its field."""
    if dataclasses.is_dataclass(settings):
        for one in dataclasses.fields(settings):
            yield from _paths(getattr(settings, one.name), one.name)
    elif isinstance(settings, tuple):
        for value in settings:
            yield from _paths(value, name)
    elif isinstance(settings, Path) or _is_path(name, settings):
        yield name, Path(settings)


def _is_path(name: str, value: Any) -> bool:  # noqa: ANN401  as above
    """Return whether a text names a folder or file, as a model may and weights may."""
    return isinstance(value, str) and (name == "model" or (name == "weights" and Path(value).is_file()))


def _run(server: "JobServer", request: "JobRequest", submission: SubmitJob, *, as_json: bool) -> "JobState | None":
    """Submit and follow, again if it fails; return how it ended, or None if nobody waits for that."""
    from cluster.submission import is_worth_a_retry, submit

    for left in range(submission.retries, -1, -1):
        placed = submit(server, request)
        logger.info("%s job %s", "submitted" if placed.is_new else "found the live", placed.id)
        if not submission.wait:
            if as_json:
                write_json({"id": placed.id, "is_new": placed.is_new})
            break
        job = _follow(server, placed.id)
        if not left or not is_worth_a_retry(job):
            return job
        logger.warning("job %s failed, and is submitted again; retries left after that: %d", job.id, left - 1)
    return None


def _follow(server: "JobServer", job_id: str) -> "JobState":
    from jobs.logs import show_line

    try:
        return server.follow(job_id, lambda line: show_line(line, sys.stderr))
    except KeyboardInterrupt:
        logger.warning(
            "job %s goes on; captioning logs %s --follow shows it again, captioning status %s --watch how far it is, "
            "captioning stop %s ends it",
            *[job_id] * 4,
        )
        sys.exit(INTERRUPTED)


def _describe(submission: SubmitJob, request: "JobRequest", *, as_json: bool) -> None:
    """Say what would be sent; ask the cluster for the id, if one is named."""
    from cluster.archive import archive_size
    from cluster.job_address import ADDRESS_VARIABLE
    from cluster.job_server import JobServer
    from cluster.submission import place

    address = submission.address or os.environ.get(ADDRESS_VARIABLE)
    placed = place(request, JobServer(address).jobs()) if address else None
    archive, num_bytes = request.archive, archive_size(request.archive)
    job_id = placed.id if placed else f"{request.name}-<n>"
    verb = "follow the live job" if placed and not placed.is_new else "submit job"
    logger.info("would %s %s to %s", verb, job_id, address or "no cluster, for none was named")
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
    if as_json:
        files = [name for name, _ in archive.files]
        code = {"folder": archive.folder, "files": files, "num_bytes": num_bytes, "left_out": archive.left_out}
        sent = {"id": job_id, "entrypoint": request.entrypoint, "runtime_env": request.runtime_env}
        write_json({"address": address, **sent, "metadata": request.metadata, "code": code})


if __name__ == "__main__":
    run_job(main)
