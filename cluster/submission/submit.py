"""Submitting a job to a Ray cluster: its request, the job it starts or follows, and when it is sent again."""

import json
import logging
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.config import without_credentials
from cluster.errors import one_line
from cluster.git import COMMIT_VARIABLE, DIRTY_VARIABLE
from cluster.job_progress import JOB_VARIABLE
from cluster.settings import differences, flattened, is_name
from cluster.submission.archive import SourceArchive, write_archive
from cluster.submission.job import COMMIT_KEY, RUN, JobState
from cluster.submission.job_server import JobServer

logger = logging.getLogger(__name__)

FORWARDED = ("CAPTIONING_HOME", "CAPTIONING_LOG_LEVEL", "MLFLOW_TRACKING_URI")
"""Environment variables that every job gets if they are set here."""
_SECRET = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|KEY", re.IGNORECASE)
_RUNTIME_ENV_KEYS = ("pip", "uv", "conda", "env_vars", "image_uri", "config")
_SETTINGS_KEY = "captioning.settings"
_TRIES = 5
_NOT_BETTER_NEXT_TIME = (2, 3)  # exit codes: bad input, refused by a gate


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """All that is sent for a job, except its id."""

    name: str
    entrypoint: str
    archive: SourceArchive
    runtime_env: dict[str, Any]
    """Without the code, which is added when it is sent."""
    settings: dict[str, str]
    """All settings by dotted name, which tell another job of the same name apart."""
    num_gpus: float = 0.0
    """GPUs of the job's own process."""

    @property
    def command(self) -> str:
        """Return the job and its arguments."""
        return self.entrypoint.removeprefix(RUN)

    @property
    def metadata(self) -> dict[str, str]:
        """Return what the cluster keeps with the job."""
        return {
            "captioning.name": self.name,
            COMMIT_KEY: self.archive.commit,
            "captioning.git_dirty": self.archive.is_dirty,
            _SETTINGS_KEY: json.dumps(self.settings),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedJob:
    """The job on the cluster that a request stands for."""

    id: str
    """Id of the live job of the same name, or the next free one."""
    is_new: bool
    """Whether no such job is live."""


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
    """Describe a job to a cluster; nothing is sent yet.

    Args:
        name: name of the job, to which its id adds a number.
        command: the job and its arguments.
        settings: the settings that the arguments resolve to, nested.
        archive: the code to send.
        runtime_env: a runtime environment, as ``read_runtime_env`` returns it.
        variables: environment variables of the job, by name.
        num_gpus: GPUs of the job's own process.

    Raises:
        ValueError: the name cannot be an id's, or an argument, setting or variable holds a secret.
    """
    if not is_name(name):
        raise ValueError(f"name {name!r} cannot be a job's; use letters, digits, points, dashes")
    recorded = {"job": command[0], **{key: str(value) for key, value in flattened(settings).items()}}
    for value in (*command, *recorded.values()):
        if without_credentials(value) != value:
            raise ValueError(
                f"{without_credentials(value)} holds credentials, which anyone could read in the job's record; "
                "set them in the environment of the cluster's nodes"
            )
    env_vars = {**runtime_env.get("env_vars", {}), **variables}
    _refuse_secrets(env_vars)
    git = {COMMIT_VARIABLE: archive.commit, DIRTY_VARIABLE: archive.is_dirty}
    return JobRequest(
        name=name,
        entrypoint=f"{RUN}{shlex.join(command)}",
        archive=archive,
        runtime_env={**runtime_env, "env_vars": {**env_vars, **git}},
        settings=recorded,
        num_gpus=num_gpus,
    )


def forwarded_variables(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that a job gets: those of every job if they are set, and those that are named.

    Raises:
        ValueError: one looks secret, or is not set.
    """
    _refuse_secrets(dict.fromkeys(names, ""))
    missing = [name for name in names if name not in environment]
    if missing:
        raise ValueError(f"--env {missing[0]} is not set here; set it, or leave it out")
    return {name: environment[name] for name in (*FORWARDED, *names) if name in environment}


def read_runtime_env(file: Path) -> dict[str, Any]:
    """Read what a job's environment has beside the installed image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or holds something else than a runtime environment.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"--runtime-env {file} does not exist; check its name") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--runtime-env {file} is not YAML ({one_line(error, with_kind=False)}); mend it") from None
    known = ", ".join(_RUNTIME_ENV_KEYS)
    if not isinstance(content, dict):
        raise ValueError(f"--runtime-env {file} holds no settings; write {known}, each with its value")
    if unknown := [key for key in content if key not in _RUNTIME_ENV_KEYS]:
        why = (
            "the code comes from --working-dir" if unknown[0] in ("working_dir", "py_modules") else f"it knows {known}"
        )
        raise ValueError(f"--runtime-env {file}: {unknown[0]} cannot be set; {why}")
    if len(managers := [key for key in ("pip", "uv", "conda") if key in content]) > 1:
        raise ValueError(
            f"--runtime-env {file} names {' and '.join(managers)}, and Ray takes one; leave out the others"
        )
    variables = content.get("env_vars", {})
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise ValueError(
            f"--runtime-env {file}: env_vars are names with text, such as A: '1'; put the values in quotes"
        )
    return content


def submit(server: JobServer, request: JobRequest) -> ResolvedJob:
    """Send a job, unless one of its name is live with the same settings.

    Raises:
        ValueError: the name is taken by a live job with other settings, or the code is too large.
        RuntimeError: the cluster refuses the job.
    """
    with tempfile.TemporaryDirectory(prefix="captioning-") as scratch:
        code = Path(scratch) / "code.zip"
        write_archive(request.archive, code)
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
    raise RuntimeError(f"others take every id of {request.name} at this moment; run the same command again")


def resolve_job(request: JobRequest, jobs: Sequence[JobState]) -> ResolvedJob:
    """Find the live job of a request's name, or the next free id.

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
            f"wait for it, end it with captioning stop {job.id}, or submit with another --name before the job"
        )


def exit_code(job: JobState) -> int:
    """Return the exit code of a job that is over, as its own process had it if it came so far."""
    code = job.exit_code or 1
    return 0 if job.status == "SUCCEEDED" else code if code > 0 else 128 - code  # killed by a signal


def is_worth_a_retry(job: JobState) -> bool:
    """Return whether a job failed by something that may not happen again."""
    return job.status == "FAILED" and exit_code(job) not in _NOT_BETTER_NEXT_TIME


def _refuse_secrets(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        if _SECRET.search(name) or without_credentials(value) != value:
            raise ValueError(
                f"variable {name} looks secret, and anyone could read it in the job's record; "
                "set it in the environment of the cluster's nodes"
            )
