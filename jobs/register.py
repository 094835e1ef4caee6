"""Register a checkpoint in MLflow as a new version of a model, with the alias challenger.

MODEL is runs:/ID (that run's best checkpoint), the folder of a checkpoint or run, or another registered version.

By default, a served version reads only images that a request contains. --allow-paths and --allow-urls let it also read
files below a folder, and images at URLs.

Examples:
    captioning register runs/training/first captioner
    captioning register runs/training/first captioner --allow-paths /srv/pictures --allow-urls public
"""

import logging
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from captioning.config import Precision
from captioning.serving.image_input import ImageInputConfig
from cluster.config import HomeConfig, TrackerConfig
from cluster.settings import check_model_name
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterJob:
    """The checkpoint to register, and its name."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Checkpoint to register, in one of the forms above."""
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the model in the registry."""
    beam_size: int = 3
    """Beam size for requests to a server that give none."""
    precision: Precision = "fp32"
    """Precision in which the version serves, and in which promote judges it; recorded with the version."""
    intake: Annotated[ImageInputConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ImageInputConfig)
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)


def main(invocation: Invocation[RegisterJob]) -> None:
    """Register the checkpoint, or say with ``--dry-run`` what would be registered."""
    job = invocation.settings
    from cluster.registry.models import resolve_model
    from cluster.registry.registration import register
    from cluster.tracking.client import connect

    check_model_name(job.name)
    client = connect(job.tracking, job.storage)
    model = resolve_model(job.model, client)
    logger.info("model %s: %s", job.model, model)
    if invocation.dry_run:
        logger.info("would register it as a new version of %s, the challenger", job.name)
        if invocation.json:
            write_json({"name": job.name, "version": None, "checkpoint": model.folder})
        return
    created = register(model, job.name, client, beam_size=job.beam_size, precision=job.precision, intake=job.intake)
    logger.info("%s version %s is the challenger", created.name, created.version)
    log_next(f"promote {created.name}")
    if invocation.json:
        write_json({"name": created.name, "version": str(created.version), "alias": "challenger"})


JOB = Job(name="register", settings=RegisterJob, run=main, description=__doc__, loads=("torch", "mlflow"))
