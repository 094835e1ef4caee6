"""What the checks before a job say: a verdict, what was found, a remedy each. Imports no torch, Ray or MLflow."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.config import ClusterConfig
from cluster.errors import Refusal, Unreachable, found_and_remedy, one_line
from cluster.resources.capacity import Capacity

logger = logging.getLogger(__name__)

Verdict = Literal["ok", "failed", "warning", "not asked"]
NAMES = ("cluster", "versions", "resources", "shards", "home", "checkpoints", "tracking", "gpu", "disk")
_CONNECTIONS = ("cluster", "tracking")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        """Say what was found and what to do, in one line."""
        return found_and_remedy(self.found, self.remedy)


def require(checks: Sequence[Check]) -> None:
    """Log what is doubtful, and refuse a job that cannot work.

    Raises:
        Unreachable: the cluster or the tracker cannot be reached.
        Refusal: another check failed.
    """
    for check in checks:
        if check.verdict == "warning":
            logger.warning("%s: %s", check.name, check)
    for check in checks:
        if check.verdict == "failed":
            raise (Unreachable if check.name in _CONNECTIONS else Refusal)(check.found, check.remedy)


def unreachable(error: ConnectionError) -> list[Check]:
    """Return the list for a cluster that does not answer."""
    rest = [Check(name=name, verdict="not asked", found="no cluster answers") for name in NAMES[1:]]
    return [failed("cluster", error), *rest]


def failed(name: str, error: Exception) -> Check:
    """Return the result of a check that an error ended; only errors of our own have a remedy apart from their text."""
    if isinstance(error, Refusal | Unreachable):
        return Check(name=name, verdict="failed", found=error.found, remedy=error.remedy)
    return Check(name=name, verdict="failed", found=one_line(error, with_kind=False, longest=None))


def check_capacity_result(config: ClusterConfig, room: Capacity) -> Check:
    """Say whether workers that fit into a cluster can start now."""
    found = f"{config.num_workers} workers are wanted, {room.free} fit now"
    if room.free >= config.min_workers:
        return Check(name="resources", verdict="ok", found=found)
    if room.autoscaled >= config.min_workers:
        found = f"{found}, and the autoscaler may start nodes for {room.autoscaled}"
        return Check(name="resources", verdict="ok", found=found)
    found = f"{found}, {room.total} once nothing else is on the cluster"
    remedy = "wait for other jobs to end; captioning check --clean removes what dead ones left"
    return Check(name="resources", verdict="warning", found=found, remedy=remedy)
