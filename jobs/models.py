"""List the registered models: versions, aliases, scores and age.

Examples:
    captioning models
    captioning models captioner --json
"""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import tyro

from cluster.config import HomeConfig, TrackerConfig
from cluster.job_progress import duration
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import show_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelsJob:
    """The models to list."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NAME]")] = None
    """Name of a registered model; all models if not given."""
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)


def main(invocation: Invocation[ModelsJob]) -> None:
    """List the versions."""
    job = invocation.settings
    from cluster.registry.versions import GATE_METRIC, list_versions
    from cluster.tracking.client import connect

    # An empty list is no mistake, unlike a wrong name.
    if not job.name and not job.tracking.may_exist(job.storage.home):
        logger.info("nothing was registered in %s yet", job.storage.home)
        if invocation.json:
            write_json([])
        return
    client = connect(job.tracking, job.storage, only_reads=True)
    versions = list_versions(client, job.name, is_dry_run=invocation.dry_run)
    if invocation.json:
        write_json(versions)
        return
    rows = [
        (
            one.name,
            one.version,
            ", ".join(one.aliases),
            one.run,
            one.step,
            ", ".join(
                f"{split} {found['scores'][GATE_METRIC]:.3f}"
                for split, found in one.scores.items()
                if GATE_METRIC in found["scores"]
            ),
            _age(one.registered_at),
        )
        for one in versions
    ]
    show_table(
        f"Models in {client.tracking_uri}",
        ("name", "version", "aliases", "run", "step", GATE_METRIC, "age"),
        rows,
    )


def _age(moment: str) -> str:
    age = datetime.now(tz=UTC) - datetime.fromisoformat(moment)
    return f"{age.days} days" if age.days > 1 else duration(age.total_seconds())


JOB = Job(name="models", settings=ModelsJob, run=main, description=__doc__)
