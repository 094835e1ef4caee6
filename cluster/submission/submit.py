"""Submission of a job to a Ray cluster: the request, the job that it starts or attaches to, and when to retry."""

import json
import logging
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.git import COMMIT_VARIABLE, DIRTY_VARIABLE
from cluster.job_progress import JOB_VARIABLE
from cluster.settings import differences, flattened, is_name
from cluster.submission.archive import SourceArchive, write_archive
from cluster.submission.job import COMMIT_KEY, RUN, JobState
from cluster.submission.job_server import JobServer
from cluster.submission.runtime_env import refuse_secrets
from shards.storage.location import without_credentials

logger = logging.getLogger(__name__)

_SETTINGS_KEY = "captioning.settings"
_TRIES = 5
_NOT_BETTER_NEXT_TIME = (2, 3)  # exit codes that make a retry useless: bad input, refused by a gate


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """Everything that is sent to submit a job, except its id."""

    name: str
    entrypoint: str
    archive: SourceArchive
    runtime_env: dict[str, Any]
    """Ray's runtime environment without the code, which ``submit`` adds."""
    settings: dict[str, str]
    """All settings by dotted name; a live job with the same name must have the same."""
    num_gpus: float = 0.0
    """Number of GPUs of the job's own process."""

    @property
    def command(self) -> str:
        """Return the command of the job, such as ``train coco``, with its arguments."""
        return self.entrypoint.removeprefix(RUN)

    @property
    def metadata(self) -> dict[str, str]:
        """Return the metadata that the cluster stores with the job."""
        return {
            "captioning.name": self.name,
            COMMIT_KEY: self.archive.commit,
            "captioning.git_dirty": self.archive.is_dirty,
            _SETTINGS_KEY: json.dumps(self.settings),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedJob:
    """The job on the cluster that a request starts or attaches to."""

    id: str
    """Id of the live job with the same name, or the next free id."""
    is_new: bool
    """Whether the job must be submitted, because no job with this name is live."""


def build_request(
    name: str,
    command: Sequence[str],
    *,
    settings: Mapping[str, Any],
    archive: SourceArchive,
    runtime_env: Mapping[str, Any],
    variables: Mapping[str, str],
    num_gpus: float = 0.0,
) -> JobRequest:
    """Return the request for a job; nothing is sent yet.

    Args:
        name: name of the job; its id is this name and a number.
        command: the command of the job, and its arguments.
        settings: the settings that the arguments resolve to, nested.
        archive: the code to send.
        runtime_env: a runtime environment, as ``read_runtime_env`` returns it.
        variables: environment variables of the job, by name.
        num_gpus: number of GPUs of the job's own process.

    Raises:
        ValueError: the name cannot be part of an id, or an argument, setting or variable holds a secret.
    """
    if not is_name(name):
        raise ValueError(f"name {name!r} cannot be a job's name; use letters, digits, periods, dashes and underscores")
    recorded = {"job": command[0], **{key: str(value) for key, value in flattened(settings).items()}}
    for value in (*command, *recorded.values()):
        if without_credentials(value) != value:
            raise ValueError(
                f"{without_credentials(value)} holds credentials, which everyone could read in the job's metadata; "
                "set them in the environment of the cluster's nodes"
            )
    env_vars = {**runtime_env.get("env_vars", {}), **variables}
    refuse_secrets({**runtime_env, "env_vars": env_vars})
    git = {COMMIT_VARIABLE: archive.commit, DIRTY_VARIABLE: archive.is_dirty}
    return JobRequest(
        name=name,
        entrypoint=f"{RUN}{shlex.join(command)}",
        archive=archive,
        runtime_env={**runtime_env, "env_vars": {**env_vars, **git}},
        settings=recorded,
        num_gpus=num_gpus,
    )


def submit(server: JobServer, request: JobRequest) -> ResolvedJob:
    """Submit a job, unless a job with the same name and settings is live.

    Raises:
        ValueError: a live job with other settings has the name, or the code is too large.
        RuntimeError: the cluster refuses the job.
    """
    with tempfile.TemporaryDirectory(prefix="captioning-") as scratch:
        code = Path(scratch) / "code.zip"
        write_archive(request.archive, code)
        # Between the listing and the submission, another client may take the id: list again, and take the next one.
        for _ in range(_TRIES):
            resolved = resolve_job(request, server.jobs())
            if not resolved.is_new:
                return resolved
            variables = {**request.runtime_env["env_vars"], JOB_VARIABLE: resolved.id}
            runtime_env = {**request.runtime_env, "env_vars": variables, "working_dir": str(code)}
            if server.submit(
                resolved.id,
                entrypoint=request.entrypoint,
                runtime_env=runtime_env,
                metadata=request.metadata,
                num_gpus=request.num_gpus,
            ):
                return resolved
    raise RuntimeError(f"other clients are submitting {request.name} at the same time; run the same command again")


def resolve_job(request: JobRequest, jobs: Sequence[JobState]) -> ResolvedJob:
    """Find the live job with a request's name, or the next free id.

    Raises:
        ValueError: the live job has other settings.
    """
    form = re.compile(rf"{re.escape(request.name)}-(\d+)")
    numbers = {int(found[1]): job for job in jobs if (found := form.fullmatch(job.id))}
    for _, job in sorted(numbers.items(), reverse=True):
        if not job.is_over:
            _check_same(request, job)
            return ResolvedJob(id=job.id, is_new=False)
    return ResolvedJob(id=f"{request.name}-{max(numbers, default=0) + 1}", is_new=True)


def _check_same(request: JobRequest, job: JobState) -> None:
    theirs = json.loads(job.metadata.get(_SETTINGS_KEY, "{}"))
    if changes := differences(theirs, request.settings):
        raise ValueError(
            f"name {request.name} is taken by the live job {job.id} with other settings ({'; '.join(changes)}); "
            f"wait for it, stop it with captioning stop {job.id}, or submit with another --name before the job"
        )


def exit_code(job: JobState) -> int:
    """Return the exit code of an ended job: that of its process, or 1 if the job failed before the process started."""
    code = job.exit_code or 1
    return 0 if job.status == "SUCCEEDED" else code if code > 0 else 128 - code  # below 0: killed by that signal


def is_worth_a_retry(job: JobState) -> bool:
    """Return whether a job failed for a reason that may not occur again."""
    return job.status == "FAILED" and exit_code(job) not in _NOT_BETTER_NEXT_TIME
