"""Submission of a training run by its configuration, which travels as a file instead of a command line."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster.checks.result import require
from cluster.config import TrainRun
from cluster.runs.identity import config_text
from cluster.settings import as_plain
from cluster.submission.archive import plan_archive
from cluster.submission.job_server import JobServer
from cluster.submission.paths import travelling_files
from cluster.submission.plan import plan_submission
from cluster.submission.runtime_env import forwarded_variables, read_runtime_env
from cluster.submission.submit import (
    JobRequest,
    ResolvedJob,
    build_request,
    submit,
)

CONFIG_NAME = "captioning-run.yaml"


def submit_training(
    run: TrainRun,
    server: JobServer,
    *,
    name: str | None = None,
    working_dir: Path | None = None,
    runtime_env: Path | None = None,
    env: Sequence[str] = (),
) -> ResolvedJob:
    """Check a training run against a cluster, and submit it; a live job with its name and settings is returned instead.

    Args:
        run: the run, with paths as the cluster's nodes see them.
        server: job server of the cluster.
        name: name of the job; None for the name of the run.
        working_dir: folder of the code to upload; None for the default of ``plan_archive``.
        runtime_env: YAML file of a Ray runtime environment; None for none.
        env: names of environment variables to forward to the job.

    Raises:
        FileNotFoundError: the folder lacks the code.
        ValueError: a path is relative, the cluster cannot run the job, or a live job with other settings has the name.
        RuntimeError: the cluster refuses the job.
    """
    with tempfile.TemporaryDirectory(prefix="captioning-") as scratch:
        request = training_request(
            run, Path(scratch) / CONFIG_NAME, name=name, working_dir=working_dir, runtime_env=runtime_env, env=env
        )
        require(plan_submission(server, request, workers=run.cluster, tracking=run.tracking).checks)
        return submit(server, request)


def training_request(
    run: TrainRun,
    file: Path,
    *,
    name: str | None = None,
    working_dir: Path | None = None,
    runtime_env: Path | None = None,
    env: Sequence[str] = (),
) -> JobRequest:
    """Return the request for a training run, and write the run's configuration.

    Args:
        run: the run, with paths as the cluster's nodes see them.
        file: file of the configuration to write, on this machine.
        name: name of the job; None for the name of the run.
        working_dir: folder of the code to upload; None for the default of ``plan_archive``.
        runtime_env: YAML file of a Ray runtime environment; None for none.
        env: names of environment variables to forward to the job.

    Raises:
        FileNotFoundError, ValueError: as by ``submit_training``.
    """
    code = plan_archive(working_dir, inputs=list(travelling_files(run)))
    file.write_text(config_text(run), encoding="utf-8")
    return build_request(
        name or run.name,
        ["train", "--config", file.name, *(["--take-over"] if run.storage.take_over else [])],
        settings=as_plain(run),
        archive=replace(code, files=tuple(sorted((*code.files, (file.name, file))))),
        runtime_env=read_runtime_env(runtime_env) if runtime_env else {},
        variables=forwarded_variables(env, os.environ),
    )
