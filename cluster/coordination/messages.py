"""Messages between ranks, coordinator and driver; imports neither torch nor MLflow, so that processes start soon."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cluster.coordination.restart_policy import FinalFailure
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint

Request = Literal["none", "checkpoint", "stop", "exit"]


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
    """The one to resume from."""


class HeartbeatReply(NamedTuple):
    """The coordinator's request to a rank, with a number by which the rank fulfils it once."""

    request: Request
    number: int

    def with_request(self, request: Request) -> "HeartbeatReply":
        """Return the reply with one more request; after the request to stop there is none."""
        return self if self.request == "stop" else HeartbeatReply(request, self.number + 1)

    def after_checkpoint(self) -> "HeartbeatReply":
        """Return the reply once a checkpoint counts, which need not be requested any more."""
        return HeartbeatReply("none", self.number) if self.request == "checkpoint" else self


class ControllerStarted(NamedTuple):
    """Train's controller runs."""

    controller: Any
    """Ray's handle."""


class WorkersStarting(NamedTuple):
    """Train's controller is about to start a group of workers."""

    num_workers: int
    controller: Any
    """Ray's handle; a coordinator that was killed has forgotten it."""


class WorkersStarted(NamedTuple):
    """The processes of a group run, and have not yet begun to train."""

    workers: tuple[WorkerInfo, ...]


class StartFailed(NamedTuple):
    """A group failed before it began to train."""

    reason: str


class WorkerError(NamedTuple):
    """Ray's word on a worker that failed."""

    text: str
    is_death: bool
    """Whether its process is gone."""


class WorkersFailed(NamedTuple):
    """A group has ended by failures."""

    errors: Mapping[int, WorkerError]
    """By rank."""


class ControllerLost(NamedTuple):
    """Train's controller has ended before the training."""

    reason: str


TrainEvent = ControllerStarted | WorkersStarting | WorkersStarted | StartFailed | WorkersFailed | ControllerLost


class RunProgress(NamedTuple):
    """How far a run is, for people and for the driver.

    Attributes:
        attempt: number of the current attempt.
        row: latest metrics, with their step.
        events: events for people, in order, after those that were known already.
        num_events: number of events so far.
        num_steps_redone: steps computed again after restarts of this driver's workers.
        final_failure: why there is no further attempt.
        is_stopped: whether the ranks have stopped, with their last checkpoint on disk.
        latest: checkpoint to resume from.
        workers: ranks of the latest group that began.
    """

    attempt: int
    row: Row | None
    events: list[str]
    num_events: int = 0
    num_steps_redone: int = 0
    final_failure: FinalFailure | None = None
    is_stopped: bool = False
    latest: CommittedCheckpoint | None = None
    workers: tuple[WorkerInfo, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinatorSettings:
    """What a coordinator needs to know of its run."""

    tracking_uri: str
    keep_best: int = 2
    keep_last: int = 2
    batch_size: int = 1
    max_restarts: int = 3
    max_preemptions: int = 100
    hang_seconds: float = 600.0
    start_seconds: float = 660.0
    """Time that a group may take until its processes run."""
    driver_pid: int | None = None
    """Process id of the driver on this node, with which the coordinator ends."""
