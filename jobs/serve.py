"""Answer HTTP requests with a registered model's captions, by mlflow models serve, until it is stopped.

MODEL is models:/NAME@alias or models:/NAME/VERSION. A version comes with code of its own: whoever may register one runs
code here.

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

from cluster.config import StorageConfig, TrackingConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeJob:
    """What to serve."""

    model: tyro.conf.Positional[str]
    """The model."""
    host: str = "127.0.0.1"
    """Address to answer at; 0.0.0.0 answers other machines too, and asks nobody for a password."""
    port: int = 5000
    """Port to answer at."""
    num_workers: int = 1
    """Processes, each with a model of its own."""
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.num_workers < 1:
            raise ValueError(f"{self.num_workers} processes serve nothing; use at least 1")


def main(invocation: Invocation[ServeJob]) -> None:
    """Become MLflow's server."""
    job = invocation.settings
    if not job.model.startswith("models:/"):
        raise ValueError(f"{job.model} is not registered; use models:/NAME@alias or models:/NAME/VERSION")
    from cluster.registry.models import find_version
    from cluster.registry.safe_loading import require_safe
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage)
    found = find_version(job.model, client)
    require_safe(found, client)
    # The version, not the alias: what was looked at is what is served.
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
    logger.info("%s is %s version %s", job.model, found.name, found.version)
    if invocation.dry_run:
        logger.info("would serve it at http://%s:%d/invocations", job.host, job.port)
        if invocation.json:
            write_json({"name": found.name, "version": str(found.version), "command": command})
        return
    changes = {
        "MLFLOW_TRACKING_URI": client.tracking_uri,
        "MLFLOW_REGISTRY_URI": client.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        # MLflow starts its server by name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    os.execve(command[0], command, os.environ | changes)


JOB = Job(name="serve", settings=ServeJob, run=main, description=__doc__)
