"""Look at a Ray cluster: its nodes, what of them is free, and what dead jobs left on it.

A leftover is a placement group whose job and maker are dead, or an actor of a dead job that only served that job. It
may hold CPUs and GPUs that later jobs wait for. What a living job made is never removed, nor is a detached placement
group.

Examples:
    captioning check --cluster.address 10.0.0.1:6379
    captioning check --cluster.address auto --clean
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.config import ClusterConfig
from jobs.cli import run_job
from jobs.output import write_json
from jobs.parsing import parse
from jobs.terminal import show_table

if TYPE_CHECKING:
    from cluster.gcs import NodeShare
    from cluster.leftovers import Remnant

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckJob:
    """Which cluster to look at."""

    clean: bool = False
    """Remove the leftovers."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and look."""
    invocation = parse(CheckJob, arguments, default=CheckJob(), job="check", description=__doc__ or "")
    job = invocation.settings
    address = job.cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        raise ValueError("no cluster was named; use --cluster.address HOST:PORT, or set RAY_ADDRESS")
    from cluster.gcs import list_nodes, read_tables
    from cluster.leftovers import find_remnants, remove
    from cluster.session import cluster_session

    with cluster_session(job.cluster):
        nodes, remnants = list_nodes(), find_remnants(read_tables())
        leftovers = [one for one in remnants if one.is_leftover]
        is_cleaning = job.clean and not invocation.dry_run
        stuck = remove(leftovers) if is_cleaning else []
    removed = [one for one in leftovers if one not in stuck] if is_cleaning else []
    _show(address, nodes, remnants)
    for one in removed:
        logger.info("removed %s", one)
    if leftovers and not is_cleaning:
        logger.warning("%d leftovers of dead jobs; captioning check --clean removes them", len(leftovers))
    if invocation.json:
        kept = [one for one in remnants if not one.is_leftover]
        document = {"address": address, "nodes": [node._asdict() for node in nodes], "leftovers": leftovers}
        write_json(document | {"kept": kept, "removed": [one.id for one in removed]})
    if stuck:
        raise RuntimeError(
            f"{len(stuck)} of {len(leftovers)} leftovers are still there, first {stuck[0]}; "
            "run the same command again, or restart the cluster"
        )


def _show(address: str, nodes: Sequence["NodeShare"], remnants: Sequence["Remnant"]) -> None:
    shares = [
        (node.id[:8], node.address, f"{node.cpus_free:g}/{node.cpus:g}", f"{node.gpus_free:g}/{node.gpus:g}")
        for node in nodes
    ]
    show_table(f"Cluster at {address}", ("node", "address", "CPUs free", "GPUs free"), shares)
    if not remnants:
        logger.info("dead jobs left nothing")
        return
    rows = [(str(one), one.kept_because and f"kept: {one.kept_because}") for one in remnants]
    show_table("Of dead jobs", ("what", ""), rows)


if __name__ == "__main__":
    run_job(main)
