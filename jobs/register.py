"""Register a checkpoint as a new version of a model, with the alias challenger.

MODEL is runs:/ID (its best checkpoint), a folder of a checkpoint or run, or another registered version.

Examples:
    captioning register runs/training/first captioner
    captioning register runs/training/first captioner --allow-paths /srv/pictures --allow-urls public
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from captioning.serving.image_input import ImageInputConfig
from cluster.config import StorageConfig, TrackingConfig
from jobs.cli import run_job
from jobs.console.output import write_json
from jobs.console.parsing import parse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterJob:
    """What to register."""

    model: tyro.conf.Positional[str]
    """The model."""
    name: tyro.conf.Positional[str]
    """Its name in the registry."""
    beam_size: int = 3
    """Of the search when it serves, where a request names none."""
    intake: Annotated[ImageInputConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ImageInputConfig)
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and register the model."""
    default = RegisterJob(model=tyro.MISSING, name=tyro.MISSING)
    invocation = parse(RegisterJob, arguments, default=default, job="register", description=__doc__ or "")
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


if __name__ == "__main__":
    run_job(main)
