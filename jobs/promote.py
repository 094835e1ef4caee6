"""Make the challenger of a model its champion, if it is better. Exit code 3: it is not, and nothing has changed.

Challenger and champion caption the same images. The challenger has to score higher by more than --min-gain in the share
--confidence of resamples of these images, to reach every floor, and to behave no worse: no empty captions, no more
repetition, captions that stay the same where an image is re-encoded or slightly cropped. Whoever is refused may be
promoted by --force all the same, and the history says so.

Examples:
    captioning promote captioner --shards shards
    captioning promote captioner --version 3 --min-gain 0.01 --confidence 0.99 --floors BLEU-4 0.2
    captioning promote captioner --dry-run
    captioning promote captioner --force --reason "the champion was trained on photographs that we have to forget"
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated

import tyro

from cluster.config import OptionalLocation, StorageConfig, TrackingConfig
from cluster.errors import GateRefusal
from cluster.promotion.gate_config import GateConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import counting, show_table

if TYPE_CHECKING:
    from cluster.promotion.gate import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteJob:
    """What to promote."""

    name: tyro.conf.Positional[str]
    """The model's name in the registry."""
    version: int | None = None
    """Version to promote; the challenger if not given."""
    shards: OptionalLocation = None
    """Shard set to compare on; the one that the version was trained on if not given."""
    split: str = "val"
    """Split of the shard set."""
    force: bool = False
    """Promote it whatever the gate says; needs --reason."""
    reason: str = ""
    """Why it is forced, for the history."""
    gate: Annotated[GateConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=GateConfig)
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Check that who forces says why."""
        if self.force != bool(self.reason.strip()):
            raise ValueError("--force and --reason go together: say why the gate is passed by, for the history")


def main(invocation: Invocation[PromoteJob]) -> None:
    """Change the champion, or say why not."""
    job = invocation.settings
    from cluster.promotion.gate import COLUMNS, Gate
    from cluster.promotion.promotion import promote
    from cluster.registry.scores import keep_scores
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage)
    with _bars() as progress:
        outcome = promote(
            job.name,
            client,
            Gate(config=job.gate, shards=job.shards, split=job.split, storage=job.storage, progress=progress),
            version=job.version,
            forced_because=job.reason if job.force else None,
            is_dry_run=invocation.dry_run,
        )
    if not invocation.dry_run:
        keep_scores(outcome.judgement.evidence, client)
    change = outcome.change
    show_table(f"{job.name} version {change.version} on {job.split}", COLUMNS, outcome.judgement.rows())
    if invocation.json:
        write_json({"name": job.name, "is_promoted": outcome.is_promoted, "change": change})
    if not outcome.is_promoted:
        why = "; ".join(criterion.reason for criterion in outcome.judgement.criteria if not criterion.is_passed)
        raise GateRefusal(f"{job.name} version {change.version} is refused, and the champion stays: {why}")
    verb = "would become" if invocation.dry_run else "is"
    over = f"version {change.over}" if change.over else "none before"
    logger.info("%s version %s %s the champion over %s", job.name, change.version, verb, over)
    logger.info("%s: %s", change.kind, change.reason)


@contextmanager
def _bars() -> "Iterator[Progress]":
    """Give what shows how many captions are written: a bar for each kind, none if nothing is judged."""
    tasks = {}
    with ExitStack() as shown:
        bars = cache(lambda: shown.enter_context(counting()))

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars().add_task(what, total=total)
            bars().update(tasks[what], completed=done)

        yield show


JOB = Job(name="promote", settings=PromoteJob, run=main, description=__doc__)
