"""Serve a registered model over HTTP with mlflow models serve, until it is stopped.

MODEL is models:/NAME@alias or models:/NAME/VERSION. The server runs code that is stored with the version, so anyone who
may register versions can run code here. Versions that contain a pickle are refused.

Examples:
    captioning serve models:/captioner@champion --port 5001
"""

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from captioning.bounds import outside, raise_mistakes
from captioning.config import PORTS
from cluster.config import HomeConfig, TrackerConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.ports import require_free_port

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeJob:
    """The model to serve, and where."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Registered model to serve."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 accepts requests from other machines too, without authentication."""
    port: int = 5000
    """Port to listen on."""
    num_workers: int = 1
    """Number of server processes, each with its own copy of the model."""
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(outside(self, port=PORTS, num_workers=(1, 1_000)))


def main(invocation: Invocation[ServeJob]) -> None:
    """Check the version, then replace this process by MLflow's server."""
    job = invocation.settings
    if not job.model.startswith("models:/"):
        raise ValueError(
            f"{job.model} is not the address of a registered model; use models:/NAME@alias or models:/NAME/VERSION"
        )
    from cluster.registry.models import find_version
    from cluster.registry.safe_loading import require_safe
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage, only_reads=True)
    found = find_version(job.model, client)
    require_safe(found, client)
    # The version and not the alias, which may move to an unchecked version before the server resolves it.
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{found.name}/{found.version}"]
    command += [
        "--env-manager",
        "local",
        "--host",
        job.host,
        "--port",
        str(job.port),
        "--workers",
        str(job.num_workers),
    ]
    logger.info("model %s: %s version %s", job.model, found.name, found.version)
    if invocation.dry_run:
        logger.info("would serve it at http://%s:%d/invocations", job.host, job.port)
        if invocation.json:
            write_json({"name": found.name, "version": str(found.version), "command": command})
        return
    require_free_port(job.host, job.port)
    changes = {
        "MLFLOW_TRACKING_URI": client.tracking_uri,
        "MLFLOW_REGISTRY_URI": client.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        # MLflow starts its server by a program's bare name, which must be found in this environment first.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    os.execve(command[0], command, os.environ | changes)


JOB = Job(name="serve", settings=ServeJob, run=main, description=__doc__)
