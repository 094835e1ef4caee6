"""Check whether a job can run on a cluster, and find what dead jobs left there. Takes the arguments of train.

Checks on every node: same package versions, readable shards, writable storage, reachable tracker, usable GPUs. train
and tune run the same checks before they start. Without an address, only this machine is checked.

A leftover is a placement group whose job and creator are dead, or an actor that only served a dead job. It may reserve
CPUs and GPUs that other jobs wait for. --clean removes leftovers; it never removes what a live job made, nor a detached
placement group.

Examples:
    captioning check --cluster.address 10.0.0.1:6379
    captioning check coco --shards /mnt/coco-shards --home /mnt/runs --cluster.address auto --cluster.num-workers 8
    captioning check --cluster.address auto --clean
    captioning check --ledger-of big                 # was each sample trained on exactly once an epoch?
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from cluster.config import TrainRun
from cluster.errors import Refusal, Unreachable
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
    """The training run to check for, and what to do with leftovers."""

    clean: Annotated[bool, tyro.conf.arg(prefix_name=False)] = False
    """Remove the leftovers of dead jobs."""
    ledger_of: Annotated[str | None, tyro.conf.arg(prefix_name=False)] = None
    """Run (its name or folder) whose sample ledger is audited, and nothing else checked; runs keep one with --ledger.
    If not given, the check is whether a job can run."""


# The presets of train, converted to CheckRun, which adds two flags.
_PRESETS = {
    name: (what, CheckRun(**{one.name: getattr(run, one.name) for one in fields(TrainRun)}))
    for name, (what, run) in TRAIN_PRESETS.items()
}


_SHOWN = ("CPU", "GPU")


class _Survey(NamedTuple):
    """State of a cluster.

    Attributes:
        nodes: live nodes.
        orphans: placement groups and actors of dead jobs.
        removed: leftovers that this command removed.
        stuck: leftovers that it could not remove.
    """

    nodes: list["Node"]
    orphans: list["Orphan"]
    removed: list["Orphan"]
    stuck: list["Orphan"]

    @property
    def leftovers(self) -> list["Orphan"]:
        """Return the orphans that may be removed."""
        return [one for one in self.orphans if one.is_leftover]


def main(invocation: Invocation[CheckRun]) -> None:
    """Check the job and the cluster, and remove leftovers with ``--clean``."""
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
    """Log whether a run trained on each sample exactly once an epoch; fail if not."""
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
        raise RuntimeError(f"{folder}: samples were lost or repeated ({found})")


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
        show_table("Leftovers of dead jobs", ("what", ""), rows)
    else:
        logger.info("no leftovers from dead jobs")
    for one in survey.removed:
        logger.info("removed %s", one)
    if len(survey.leftovers) > len(survey.removed) + len(survey.stuck):
        logger.warning("leftovers of dead jobs: %d; captioning check --clean removes them", len(survey.leftovers))
    rows = [(check.name, check.verdict, check.found, check.remedy) for check in checks]
    show_table("Checks", ("check", "verdict", "found", "remedy"), rows)


def _share(node: "Node") -> dict[str, object]:
    """Return the JSON object of a node."""
    amounts: dict[str, object] = {"id": node.id, "address": node.address}
    for name in _SHOWN:
        amounts[f"{name.lower()}s_free"] = node.free.get(name, 0.0)
        amounts[f"{name.lower()}s"] = node.total.get(name, 0.0)
    return amounts


def _conclude(survey: _Survey, checks: Sequence["CheckResult"]) -> None:
    """Raise an error if a leftover could not be removed or a check failed."""
    if survey.stuck:
        raise RuntimeError(
            f"could not remove {len(survey.stuck)} of {len(survey.leftovers)} leftovers, first {survey.stuck[0]}; "
            "run the same command again, or restart the cluster"
        )
    failed = [check for check in checks if check.verdict == "failed"]
    if failed:
        count = f"{len(failed)} checks failed, first {failed[0].name}: " if len(failed) > 1 else ""
        may_pass = all(check.may_pass for check in failed)
        raise (Unreachable if may_pass else Refusal)(f"{count}{failed[0].found}", failed[0].remedy)


JOB = Job(name="check", settings=CheckRun, run=main, description=__doc__, presets=_PRESETS)
