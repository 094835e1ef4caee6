"""Make an earlier champion of a model the champion again, in seconds and without a gate.

Without --to it is the version over which the present champion was promoted; a second rollback goes back further. The
history says who went back, from which version to which.

Examples:
    captioning rollback captioner
    captioning rollback captioner --to 3 --reason "it is worse at night"
"""

import logging
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.config import StorageConfig, TrackingConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RollbackJob:
    """Where to go back."""

    name: tyro.conf.Positional[str]
    """The model's name in the registry."""
    to: int | None = None
    """Version that was champion once; the champion before if not given."""
    reason: str = ""
    """For the history."""
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def main(invocation: Invocation[RollbackJob]) -> None:
    """Change the champion."""
    job = invocation.settings
    from cluster.promotion.promotion import rollback
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage)
    change = rollback(job.name, client, to=job.to, reason=job.reason, is_dry_run=invocation.dry_run)
    verb = "would be" if invocation.dry_run else "is"
    logger.info("%s version %s %s the champion again, over version %s", job.name, change.version, verb, change.over)
    if invocation.json:
        write_json({"name": job.name, "change": change})


JOB = Job(name="rollback", settings=RollbackJob, run=main, description=__doc__)
