"""List every change of a model's champion: when, by whom, from which version to which, and why.

MLflow's page of the registered model NAME.history shows the same, with the gate's table for each change. --json adds
the gate's evidence.

Examples:
    captioning history captioner
    captioning history captioner --json
"""

import logging
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.config import HomeConfig, TrackerConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import show_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryJob:
    """The model to list the changes of."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the model in the registry."""
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)


def main(invocation: Invocation[HistoryJob]) -> None:
    """List the changes."""
    job = invocation.settings
    from cluster.registry.champion import reconcile_alias
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage, only_reads=True)
    state = reconcile_alias(job.name, client, is_dry_run=invocation.dry_run)
    if state.fault:
        logger.warning("%s", state.fault)
    if invocation.json:
        write_json({"name": job.name, "champion": state.champion, "changes": state.changes})
        return
    rows = [
        (
            str(one.entry),
            one.at[:16].replace("T", " "),
            f"{one.over or 'none'} -> {one.version or 'unknown'}",
            one.kind,
            one.by,
            one.reason,
        )
        for one in state.changes
    ]
    champion = f"champion is version {state.champion}" if state.champion else "no champion"
    title = f"{job.name}: {champion} (in {client.tracking_uri})"
    show_table(title, ("entry", "time (UTC)", "champion", "kind", "by", "reason"), rows)


JOB = Job(name="history", settings=HistoryJob, run=main, description=__doc__)
