"""Make the challenger of a model its champion, if it scores higher on the same split. Exit code 3: it does not.

Examples:
    captioning promote captioner --split val
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.config import StorageConfig, TrackingConfig
from jobs.cli import run_job
from jobs.output import write_json
from jobs.parsing import parse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteJob:
    """What to promote."""

    name: tyro.conf.Positional[str]
    """The model's name in the registry."""
    split: str = "val"
    """Split whose CIDEr-D decides."""
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and move the alias, or say why not."""
    default = PromoteJob(name=tyro.MISSING)
    invocation = parse(PromoteJob, arguments, default=default, job="promote", description=__doc__ or "")
    job = invocation.settings
    from cluster.registry import decide_promotion, promote
    from cluster.tracking import connect

    client = connect(job.tracking, job.storage)
    decision = decide_promotion(job.name, client, split=job.split)
    verb = "would become" if invocation.dry_run else "is"
    if not invocation.dry_run:
        promote(decision, client)
    logger.info("%s version %s %s the champion; %s", decision.name, decision.version, verb, decision.reason)
    if invocation.json:
        write_json(decision)


if __name__ == "__main__":
    run_job(main)
