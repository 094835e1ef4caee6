"""What ranks, coordinator and driver say to each other; imports neither torch nor MLflow, so that ranks start soon."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cluster.coordination.restart_policy import Verdict
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint

Order = Literal["go on", "checkpoint", "stop", "leave"]


class WorkerInfo(NamedTuple):
    """Where a rank runs."""

    rank: int
    node_id: str
    host: str
    pid: int
    log: str
    """Path of its log on that node, or empty."""
    actor: Any = None
    """Ray's handle."""
    born: float | None = None
    """When the process started, seconds since 1970, by which another one with its number is told apart."""

    def __str__(self) -> str:
        """Say which rank it is, and where."""
        return f"rank {self.rank} (process {self.pid} on {self.host})"


class Attempt(NamedTuple):
    """One start of the worker group."""

    number: int
    checkpoint: CommittedCheckpoint | None


class Answer(NamedTuple):
    """What the coordinator wants of a rank; each wish has a number, so that it is fulfilled once."""

    order: Order
    number: int

    def with_wish(self, order: Order) -> "Answer":
        """Return the answer with one wish more; after the wish to stop there is none."""
        return self if self.order == "stop" else Answer(order, self.number + 1)

    def after_checkpoint(self) -> "Answer":
        """Return the answer once a checkpoint counts, which need not be wished for any more."""
        return Answer("go on", self.number) if self.order == "checkpoint" else self


class Progress(NamedTuple):
    """How far a run is, for people and for the driver.

    Attributes:
        attempt: that is running.
        row: latest metrics, with their step.
        events: what happened, in order, after what was known already.
        num_events: in all.
        num_steps_redone: computed again after restarts.
        verdict: why there is no further attempt.
        is_stopped: all that was wanted before a stop is on disk.
        latest: checkpoint to resume from.
        places: of the ranks.
    """

    attempt: int
    row: Row | None
    events: list[str]
    num_events: int = 0
    num_steps_redone: int = 0
    verdict: Verdict | None = None
    is_stopped: bool = False
    latest: CommittedCheckpoint | None = None
    places: tuple[WorkerInfo, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinatorSettings:
    """What a coordinator is told of its run."""

    tracking_uri: str
    keep_best: int = 2
    keep_last: int = 2
    batch_size: int = 1
    max_restarts: int = 3
    max_preemptions: int = 100
    hang_seconds: float = 600.0
    start_seconds: float = 660.0
    """That a group may take to start."""
    driver_pid: int | None = None
    """Of the driver on this node, with which the coordinator ends."""
