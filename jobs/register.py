"""Register a checkpoint in MLflow as a new version of a model, with the alias challenger.

MODEL is runs:/ID (that run's best checkpoint), the folder of a checkpoint or run, or another registered version. A
version that an earlier release registered has no LoggedModel; --from registers its checkpoint and scores again, under
its name.

By default, a served version reads only images that a request contains. --allow-paths and --allow-urls let it also read
files below a folder, and images at URLs.

Examples:
    captioning register runs/training/first captioner
    captioning register --from models:/captioner/1    # a version of an earlier release, as a new version
    captioning register runs/training/first captioner --allow-paths /srv/pictures --allow-urls public
"""

import logging
import re
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from captioning.config import Precision
from captioning.generation.config import GenerationConfig
from captioning.serving.image_input import ImageInputConfig
from cluster.config import HomeConfig, TrackerConfig
from cluster.settings import check_model_name
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterJob:
    """The checkpoint to register, and its name."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")] = ""
    """Checkpoint to register, in one of the forms above."""
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """Name of the model in the registry."""
    source: Annotated[str, tyro.conf.arg(name="from", metavar="models:/NAME/VERSION")] = ""
    """Registered version to register again, instead of MODEL and NAME."""
    generation: Annotated[GenerationConfig, tyro.conf.arg(name="")] = field(default_factory=GenerationConfig)
    precision: Precision = "fp32"
    """Precision in which the version serves, and in which promote judges it; recorded with the version."""
    intake: Annotated[ImageInputConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ImageInputConfig)
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)


def main(invocation: Invocation[RegisterJob]) -> None:
    """Register the checkpoint, or say with ``--dry-run`` what would be registered."""
    job = invocation.settings
    _check_model(job)
    from cluster.registry.models import resolve_model
    from cluster.registry.registration import register
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage, only_reads=invocation.dry_run)
    model = resolve_model(job.model or job.source, client)
    name = job.name or f"{model.name}"
    logger.info("model %s: %s", job.model or job.source, model)
    if invocation.dry_run:
        logger.info("would register it as a new version of %s, the challenger", name)
        if invocation.json:
            write_json({"name": name, "version": None, "checkpoint": model.folder})
        return
    created = register(model, name, client, generation=job.generation, precision=job.precision, intake=job.intake)
    logger.info("%s version %s is the challenger", created.name, created.version)
    log_next("promote", created.name)
    if invocation.json:
        write_json({"name": created.name, "version": str(created.version), "alias": "challenger"})


def _check_model(job: RegisterJob) -> None:
    """Check that there is one model, and a name for it."""
    is_complete = bool(job.model and job.name) if not job.source else not (job.model or job.name)
    if not is_complete:
        raise ValueError(
            "register needs either MODEL and NAME, or --from models:/NAME/VERSION alone; give one of the two"
        )
    if job.source and not re.fullmatch(r"models:/.+[/@].+", job.source):
        raise ValueError(f"--from {job.source} is not a registered version; use models:/NAME/VERSION")
    if job.name:
        check_model_name(job.name)


JOB = Job(name="register", settings=RegisterJob, run=main, description=__doc__, loads=("torch", "mlflow"))
