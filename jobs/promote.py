"""Make the challenger of a model its champion, if it is better. Exit code 3: refused, and nothing has changed.

Both models caption the same images. The challenger must beat the champion's score by more than --min-gain in at least
the share --confidence of resamples of these images, reach all --floors, and behave no worse: no empty captions, no more
repetition, and captions that stay the same when an image is re-encoded or slightly cropped. Without --shards, they are
judged on the shard set that the version was trained on, which must not have changed since. A version that the gate
refuses can be promoted with --force; the history records the reason.

Examples:
    captioning promote captioner --shards data/coco-shards
    captioning promote captioner --version 3 --min-gain 0.01 --confidence 0.99 --floors BLEU-4 0.2
    captioning promote captioner --dry-run
    captioning promote captioner --force --reason "the champion was trained on photographs that we have to forget"
"""

import logging
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.config import CacheConfig, TrackerConfig
from cluster.errors import GateRefusal
from cluster.locations import OptionalLocation
from cluster.promotion.gate_config import GateConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.progress_bars import counting
from jobs.console.tables import show_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteJob:
    """The version to promote, and the data to judge it on."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the model in the registry."""
    version: int | None = None
    """Version to promote; the challenger if not given."""
    shards: OptionalLocation = None
    """Shard set for the comparison; the one that the version was trained on if not given."""
    split: str = "val"
    """Split of the shard set."""
    force: bool = False
    """Promote the version even if the gate refuses it; needs --reason."""
    reason: str = ""
    """Reason for --force, recorded in the history."""
    gate: Annotated[GateConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=GateConfig)
    storage: Annotated[CacheConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=CacheConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        """Check that ``--force`` comes with a reason."""
        if self.force != bool(self.reason.strip()):
            raise ValueError(
                "--force and --reason must be given together; give both to override the gate, or leave out both"
            )


def main(invocation: Invocation[PromoteJob]) -> None:
    """Promote the version if the gate passes it; show the gate's table either way."""
    job = invocation.settings
    from cluster.promotion.gate import COLUMNS, Gate
    from cluster.promotion.outcome import record_outcome
    from cluster.promotion.pages import write_promotion_page
    from cluster.promotion.promotion import promote
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage, only_reads=invocation.dry_run)
    with counting() as progress:
        gate = Gate(config=job.gate, shards=job.shards, split=job.split, storage=job.storage, progress=progress)
        outcome = promote(
            job.name,
            client,
            gate,
            version=job.version,
            forced_because=job.reason if job.force else None,
            is_dry_run=invocation.dry_run,
        )
    page = None
    if not invocation.dry_run:
        record_outcome(outcome, client)
        page = write_promotion_page(outcome, client, gate)
    change = outcome.change
    show_table(f"{job.name} version {change.version} on {job.split}", COLUMNS, outcome.judgement.rows())
    if page:
        logger.info("page: %s", page)
    if invocation.json:
        write_json({"name": job.name, "is_promoted": outcome.is_promoted, "change": change})
    if not outcome.is_promoted:
        why = "; ".join(criterion.reason for criterion in outcome.judgement.criteria if not criterion.is_passed)
        now = "the champion is unchanged" if change.over else "there is still no champion"
        raise GateRefusal(f"{job.name} version {change.version} is refused; {now}: {why}")
    verb = "would become" if invocation.dry_run else "is now"
    before = f"replacing version {change.over}" if change.over else "there was none"
    logger.info("%s version %s %s the champion (%s)", job.name, change.version, verb, before)
    logger.info("%s: %s", change.kind, change.reason)
    if not invocation.dry_run:
        log_next("caption", "IMAGE", "--model", f"models:/{job.name}@champion")


JOB = Job(name="promote", settings=PromoteJob, run=main, description=__doc__, loads=("torch", "mlflow"))
