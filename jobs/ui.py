"""Open MLflow's pages of the runs and registered models of a home folder, until Ctrl-C.

Without a tracking server, runs and models are in the database of the home folder; this starts MLflow's server on it.

Examples:
    captioning ui                         # the database of runs/
    captioning ui --home /mnt/runs --port 5001
"""

import logging
import os
import sys
from dataclasses import dataclass, field
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
class UiJob:
    """The runs and models to show, and where."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 shows the pages to other machines too, without authentication."""
    port: int = 5000
    """Port to listen on."""
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(outside(self, port=PORTS))


def main(invocation: Invocation[UiJob]) -> None:
    """Say where the tracking server's pages are, or replace this process by MLflow's server of the database."""
    job = invocation.settings
    from cluster.tracking.client import connect
    from cluster.tracking.experiment import places_of_newest

    client = connect(job.tracking, job.storage, only_reads=True)
    uri = client.tracking_uri
    is_server = uri.startswith(("http:", "https:"))
    address = uri if is_server else f"http://{job.host}:{job.port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", job.host, "--port", str(job.port), "--workers", "1"]
    places = places_of_newest(client)
    page = f"{address}/{places.runs}"
    if places.curves:
        logger.info("losses of all runs in one chart: %s", f"{address}/{places.curves}")
    if invocation.json:
        write_json({"address": address, "command": None if is_server else command})
    if is_server or invocation.dry_run:
        logger.info("MLflow's pages %s at %s", "are" if is_server else "would be", page)
        return
    require_free_port(job.host, job.port)
    logger.info("MLflow's pages of %s: %s in a few seconds; stop with Ctrl-C", uri, page)
    os.execve(command[0], command, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


JOB = Job(name="ui", settings=UiJob, run=main, description=__doc__)
