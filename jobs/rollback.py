"""Make an earlier champion of a model the champion again, in seconds and without a gate.

Without --to it is the version over which the present champion was promoted; a second rollback goes back further. The
history says who went back, from which version to which.

Examples:
    captioning rollback captioner
    captioning rollback captioner --to 3 --reason "it is worse at night"
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.config import StorageConfig, TrackingConfig
from jobs.cli import run_job
from jobs.console.output import write_json
from jobs.console.parsing import parse

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


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and change the champion."""
    default = RollbackJob(name=tyro.MISSING)
    invocation = parse(RollbackJob, arguments, default=default, job="rollback", description=__doc__ or "")
    job = invocation.settings
    from cluster.promotion.promotion import rollback
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage)
    change = rollback(job.name, client, to=job.to, reason=job.reason, is_dry_run=invocation.dry_run)
    verb = "would be" if invocation.dry_run else "is"
    logger.info("%s version %s %s the champion again, over version %s", job.name, change.version, verb, change.over)
    if invocation.json:
        write_json({"name": job.name, "change": change})


if __name__ == "__main__":
    run_job(main)
