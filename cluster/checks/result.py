"""The result of a check before a job: a verdict, what was found, and what to do. Imports no torch, Ray or MLflow."""

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
"""The names of all checks, in the order in which they are shown."""
_CONNECTIONS = ("cluster", "tracking")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What came of one check."""

    name: str
    """One of ``NAMES``."""
    verdict: Verdict
    found: str
    """What was found, in one line."""
    remedy: str = ""
    """What to do; empty if nothing is to be done, or nobody knows."""

    def __str__(self) -> str:
        """Say what was found and what to do, in one line."""
        return found_and_remedy(self.found, self.remedy)


def require(checks: Sequence[CheckResult]) -> None:
    """Log the warnings, and refuse a job if one of its checks failed.

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


def unreachable(error: ConnectionError) -> list[CheckResult]:
    """Return the results of all checks if the cluster does not answer."""
    rest = [CheckResult(name=name, verdict="not asked", found="no cluster answers") for name in NAMES[1:]]
    return [failed("cluster", error), *rest]


def failed(name: str, error: Exception) -> CheckResult:
    """Return the result of a check that an error ended; only errors of our own have a remedy apart from their text."""
    if isinstance(error, Refusal | Unreachable):
        return CheckResult(name=name, verdict="failed", found=error.found, remedy=error.remedy)
    return CheckResult(name=name, verdict="failed", found=one_line(error, with_kind=False, longest=None))


def check_capacity_result(config: ClusterConfig, capacity: Capacity) -> CheckResult:
    """Return whether workers that fit on a cluster can start now.

    Args:
        config: how many workers there are.
        capacity: how many of them fit on the cluster.
    """
    noun = "worker" if str(config.num_workers) == "1" else "workers"
    found = f"needs {config.num_workers} {noun}, room for {capacity.free} now"
    if capacity.free >= config.min_workers:
        return CheckResult(name="resources", verdict="ok", found=found)
    if capacity.autoscaled >= config.min_workers:
        found = f"{found}, and for {capacity.autoscaled} on nodes that the autoscaler may start"
        return CheckResult(name="resources", verdict="ok", found=found)
    found = f"{found}, and for {capacity.total} once nothing else is on the cluster"
    remedy = "wait for other jobs to end; captioning check --clean removes what dead ones left"
    return CheckResult(name="resources", verdict="warning", found=found, remedy=remedy)
