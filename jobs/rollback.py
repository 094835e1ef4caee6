"""Make an earlier champion of a model the champion again, in seconds and without the gate.

Without --to, restores the version that the current champion replaced; a second rollback goes back one more. The history
records who rolled back, and from which version to which.

Examples:
    captioning rollback captioner
    captioning rollback captioner --to 3 --reason "it is worse at night"
"""

import logging
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.config import HomeConfig, TrackerConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RollbackJob:
    """The version to restore."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the model in the registry."""
    to: int | None = None
    """Version to restore, which must have been champion before; the previous champion if not given."""
    reason: str = ""
    """Reason, recorded in the history."""
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)


def main(invocation: Invocation[RollbackJob]) -> None:
    """Restore the champion, or say with ``--dry-run`` which version would be restored."""
    job = invocation.settings
    from cluster.promotion.promotion import rollback
    from cluster.registry.cards import refresh_cards
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage, only_reads=invocation.dry_run)
    change = rollback(job.name, client, to=job.to, reason=job.reason, is_dry_run=invocation.dry_run)
    verb = "would be" if invocation.dry_run else "is"
    logger.info(
        "%s version %s %s the champion again (replacing version %s)", job.name, change.version, verb, change.over
    )
    if not invocation.dry_run:
        refresh_cards(job.name, change.version, client)
        log_next("history", job.name)
    if invocation.json:
        write_json({"name": job.name, "change": change})


JOB = Job(name="rollback", settings=RollbackJob, run=main, description=__doc__)
