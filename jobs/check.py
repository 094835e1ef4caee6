"""Check whether a job could run, with the arguments of train; and look at its cluster, for what dead jobs left there.

Every node is asked whether it has the same versions, reads the shards, writes the storage, reaches the tracker, and
uses its GPUs; train, tune and submit ask the same before they start. Without an address, this machine is checked.

A leftover is a placement group whose job and maker are dead, or an actor of a dead job that only served that job. It
may hold CPUs and GPUs that later jobs wait for. What a living job made is never removed, nor is a detached placement
group.

Examples:
    captioning check --cluster.address 10.0.0.1:6379
    captioning check coco --shards /mnt/shards --home /mnt/runs --cluster.address auto --cluster.num-workers 8
    captioning check --cluster.address auto --clean
    captioning check --ledger-of big                 # did each sample train once an epoch, by the run's own ledger
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from cluster.config import TrainRun
from cluster.presets import TRAIN_PRESETS
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import show_table

if TYPE_CHECKING:
    from cluster.checks.result import CheckResult
    from cluster.resources.gcs import Node
    from cluster.resources.leftovers import Orphan

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRun(TrainRun):
    """The training run that would start, and what to do about leftovers."""

    clean: Annotated[bool, tyro.conf.arg(prefix_name=False)] = False
    """Remove the leftovers."""
    ledger_of: Annotated[str | None, tyro.conf.arg(prefix_name=False)] = None
    """Audit the sample ledger of this run, a folder or a name, and nothing else."""


_PRESETS = {
    name: (what, CheckRun(**{one.name: getattr(run, one.name) for one in fields(TrainRun)}))
    for name, (what, run) in TRAIN_PRESETS.items()
}


_SHOWN = ("CPU", "GPU")


class _Survey(NamedTuple):
    """A cluster's nodes and orphans; the leftovers that were removed, and those that could not be."""

    nodes: list["Node"]
    orphans: list["Orphan"]
    removed: list["Orphan"]
    stuck: list["Orphan"]

    @property
    def leftovers(self) -> list["Orphan"]:
        """Return the orphans that may be removed."""
        return [one for one in self.orphans if one.is_leftover]


def main(invocation: Invocation[CheckRun]) -> None:
    """Check the job and the cluster, and remove leftovers if asked to."""
    job = invocation.settings
    if job.ledger_of:
        _audit(job, job.ledger_of, as_json=invocation.json)
        return
    from cluster.checks.result import unreachable
    from cluster.resources.session import cluster_session, named_address

    address = named_address(job.cluster)
    if job.clean and not address:
        raise ValueError("no cluster was named; use --cluster.address HOST:PORT, or set RAY_ADDRESS")
    survey = _Survey([], [], [], [])
    try:
        with cluster_session(job.cluster):
            from cluster.checks.job import check_job

            survey = _survey(is_cleaning=job.clean and not invocation.dry_run)
            checks = check_job(job)
    except ConnectionError as error:
        checks = unreachable(error)
    _show(address or "this machine", survey, checks)
    if invocation.json:
        kept = [one for one in survey.orphans if not one.is_leftover]
        write_json({
            "address": address,
            "nodes": [_share(node) for node in survey.nodes],
            "checks": checks,
            "leftovers": survey.leftovers,
            "kept": kept,
            "removed": [one.id for one in survey.removed],
        })  # fmt: skip
    _conclude(survey, checks)


def _audit(job: CheckRun, run: str, *, as_json: bool) -> None:
    """Say whether each sample of a run trained exactly once an epoch."""
    from cluster.runs.record import RECORD_NAME
    from cluster.runs.sample_ledger import audit_samples

    folder = Path(run)
    if not (folder / RECORD_NAME).is_file():
        folder = replace(job, name=run).folder
    found = audit_samples(folder)
    logger.info("%s: %s", folder, found)
    if as_json:
        write_json(found._asdict())
    if not found.is_exact:
        raise RuntimeError(f"{folder}: samples were lost or repeated: {found}")


def _survey(*, is_cleaning: bool) -> _Survey:
    from cluster.resources.gcs import list_nodes, read_tables
    from cluster.resources.leftovers import find_orphans, remove_orphans

    survey = _Survey(list_nodes(), find_orphans(read_tables()), [], [])
    if not is_cleaning:
        return survey
    stuck = remove_orphans(survey.leftovers)
    return survey._replace(removed=[one for one in survey.leftovers if one not in stuck], stuck=stuck)


def _show(address: str, survey: _Survey, checks: Sequence["CheckResult"]) -> None:
    if not survey.nodes:
        return
    shares = [
        (node.id[:8], node.address, *(f"{node.free.get(name, 0.0):g}/{node.total.get(name, 0.0):g}" for name in _SHOWN))
        for node in survey.nodes
    ]
    show_table(f"Cluster at {address}", ("node", "address", "CPUs free", "GPUs free"), shares)
    if survey.orphans:
        rows = [(str(one), one.kept_because and f"kept: {one.kept_because}") for one in survey.orphans]
        show_table("Of dead jobs", ("what", ""), rows)
    else:
        logger.info("dead jobs left nothing")
    for one in survey.removed:
        logger.info("removed %s", one)
    if len(survey.leftovers) > len(survey.removed) + len(survey.stuck):
        logger.warning("%d leftovers of dead jobs; captioning check --clean removes them", len(survey.leftovers))
    rows = [(check.name, check.verdict, check.found, check.remedy) for check in checks]
    show_table("Checks", ("what", "verdict", "found", "remedy"), rows)


def _share(node: "Node") -> dict[str, object]:
    """Return a node as it is written in JSON."""
    amounts: dict[str, object] = {"id": node.id, "address": node.address}
    for name in _SHOWN:
        amounts[f"{name.lower()}s_free"] = node.free.get(name, 0.0)
        amounts[f"{name.lower()}s"] = node.total.get(name, 0.0)
    return amounts


def _conclude(survey: _Survey, checks: Sequence["CheckResult"]) -> None:
    """Raise what is amiss, in one line."""
    if survey.stuck:
        raise RuntimeError(
            f"{len(survey.stuck)} of {len(survey.leftovers)} leftovers are still there, first {survey.stuck[0]}; "
            "run the same command again, or restart the cluster"
        )
    failed = [check for check in checks if check.verdict == "failed"]
    if failed:
        count = f"{len(failed)} checks failed, first {failed[0].name}: " if len(failed) > 1 else ""
        raise ValueError(f"{count}{failed[0]}")


JOB = Job(name="check", settings=CheckRun, run=main, description=__doc__, presets=_PRESETS)
