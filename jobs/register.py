"""Register a checkpoint as a new version of a model, with the alias challenger.

MODEL is runs:/ID (its best checkpoint), a folder of a checkpoint or run, or another registered version.

Examples:
    captioning register runs/training/first captioner
    captioning register runs/training/first captioner --allow-paths /srv/pictures --allow-urls public
"""

import logging
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from captioning.serving.image_input import ImageInputConfig
from cluster.config import StorageConfig, TrackingConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterJob:
    """What to register."""

    model: tyro.conf.Positional[str]
    """The model."""
    name: tyro.conf.Positional[str]
    """Its name in the registry."""
    beam_size: int = 3
    """Beam size when it serves, where a request names none."""
    intake: Annotated[ImageInputConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ImageInputConfig)
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def main(invocation: Invocation[RegisterJob]) -> None:
    """Register the model."""
    job = invocation.settings
    from cluster.registry.models import resolve_model
    from cluster.registry.registration import register
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage)
    model = resolve_model(job.model, client)
    logger.info("%s is %s", job.model, model)
    if invocation.dry_run:
        logger.info("would register it as the challenger of %s", job.name)
        if invocation.json:
            write_json({"name": job.name, "version": None, "checkpoint": model.folder})
        return
    created = register(model, job.name, client, beam_size=job.beam_size, intake=job.intake)
    logger.info("%s version %s is the challenger", created.name, created.version)
    if invocation.json:
        write_json({"name": created.name, "version": str(created.version), "alias": "challenger"})


JOB = Job(name="register", settings=RegisterJob, run=main, description=__doc__)
