"""Result of a check before a job: a verdict, what was found, and a remedy. Imports no torch, Ray or MLflow."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.config import ClusterConfig
from cluster.errors import Refusal, Unreachable, found_and_remedy, one_line, passing_fault
from cluster.resources.capacity import Capacity

logger = logging.getLogger(__name__)

Verdict = Literal["ok", "failed", "warning", "not asked"]
NAMES = ("cluster", "versions", "resources", "shards", "home", "checkpoints", "tracking", "gpu", "disk")
"""Names of all checks, in display order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """The result of one check."""

    name: str
    """One of ``NAMES``."""
    verdict: Verdict
    found: str
    """What was found, in one line."""
    remedy: str = ""
    """What to do; empty if nothing is needed, or no remedy is known."""
    may_pass: bool = False
    """Whether a failed check may succeed later although nothing is changed, such as one of a server that is down."""

    def __str__(self) -> str:
        """Return what was found and the remedy, in one line."""
        return found_and_remedy(self.found, self.remedy)


def require(checks: Sequence[CheckResult]) -> None:
    """Log the warnings, and raise if a check failed.

    Raises:
        Unreachable: a check failed, and may succeed later.
        Refusal: a check failed for good.
    """
    for check in checks:
        if check.verdict == "warning":
            logger.warning("%s: %s", check.name, check)
    for check in checks:
        if check.verdict == "failed":
            raise (Unreachable if check.may_pass else Refusal)(check.found, check.remedy)


def unreachable(error: ConnectionError) -> list[CheckResult]:
    """Return the results of all checks if the cluster does not answer."""
    rest = [CheckResult(name=name, verdict="not asked", found="the cluster does not answer") for name in NAMES[1:]]
    return [failed("cluster", error), *rest]


def failed(name: str, error: Exception) -> CheckResult:
    """Return the result of a check that raised an error; only the project's own errors have a separate remedy."""
    may_pass = passing_fault(error) is not None
    if isinstance(error, Refusal | Unreachable):
        return CheckResult(name=name, verdict="failed", found=error.found, remedy=error.remedy, may_pass=may_pass)
    found = one_line(error, with_kind=False, longest=None)
    return CheckResult(name=name, verdict="failed", found=found, may_pass=may_pass)


def check_capacity_result(config: ClusterConfig, capacity: Capacity) -> CheckResult:
    """Return the result of the check whether workers can start now.

    Args:
        config: cluster settings, with the number of workers.
        capacity: number of these workers that fit on the cluster.
    """
    noun = "worker" if str(config.num_workers) == "1" else "workers"
    found = f"needs {config.num_workers} {noun}, room for {capacity.free} now"
    if capacity.free >= config.min_workers:
        return CheckResult(name="resources", verdict="ok", found=found)
    if capacity.autoscaled >= config.min_workers:
        found = f"{found}, and for {capacity.autoscaled} on nodes that the autoscaler may start"
        return CheckResult(name="resources", verdict="ok", found=found)
    found = f"{found}, and for {capacity.total} once nothing else runs on the cluster"
    remedy = "wait for other jobs to end; captioning check --clean removes the leftovers of dead jobs"
    return CheckResult(name="resources", verdict="warning", found=found, remedy=remedy)
