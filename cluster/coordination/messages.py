"""Messages between ranks, coordinator and driver. Imports neither torch nor MLflow, so that processes start fast."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from captioning.config import NEWEST_ARITHMETIC
from cluster.config import TrainRun
from cluster.coordination.restart_policy import FinalFailure
from cluster.runs.claim import Claim
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint, RunRecord
from cluster.runs.score_history import VALIDATION_LOSS, ScoreHistory

Request = Literal["none", "checkpoint", "stop", "exit"]
Phase = Literal["waiting", "starting", "training", "ended"]
"""What a worker group does: not started yet, its processes start, it trains, its processes have ended."""

ANSWER_SECONDS = 300.0
"""Longest time, in seconds, that the coordinator takes to answer; it may be restarted meanwhile."""


class WorkerInfo(NamedTuple):
    """Rank, node and process of a worker."""

    rank: int
    node_id: str
    """Ray's id of the node, hexadecimal; empty without Ray."""
    host: str
    pid: int
    log: str
    """Path of the worker's log on its node; empty if unknown."""
    actor: Any = None
    """Ray's handle of the worker; None without Ray."""
    born: float | None = None
    """Start time of the process, in seconds since 1970; distinguishes it from a later process with the same pid."""

    def __str__(self) -> str:
        """Return rank, process id and host as text."""
        return f"rank {self.rank} (process {self.pid} on {self.host})"


def workers_text(num_workers: int) -> str:
    """Return a number of workers as text, such as ``1 worker`` or ``2 workers``."""
    return f"{num_workers} worker{'' if num_workers == 1 else 's'}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Return metrics as text: ``validation_loss_nats`` as ``validation loss 6.270 nats/word``."""
    return ", ".join(
        f"{name.removesuffix('_nats').replace('_', ' ')} {value:.3f}{' nats/word' if name.endswith('_nats') else ''}"
        for name, value in metrics.items()
    )


class Attempt(NamedTuple):
    """One start of the worker group."""

    number: int
    checkpoint: CommittedCheckpoint | None
    """Checkpoint to resume from; None to train from the beginning."""
    arithmetic: int = NEWEST_ARITHMETIC
    """Version of the order of computation with which the run began."""
    history: ScoreHistory = ScoreHistory(VALIDATION_LOSS)
    """Validations of the run from its best one on."""

    @classmethod
    def of(cls, record: RunRecord) -> "Attempt":
        """Return the current attempt of a run, from its latest checkpoint."""
        return cls(record.attempt, record.latest, record.arithmetic, record.history)


class HeartbeatReply(NamedTuple):
    """The coordinator's request to a rank; its number lets the rank fulfil each request once."""

    request: Request
    number: int

    def with_request(self, request: Request) -> "HeartbeatReply":
        """Return the reply with a new request; a request to stop is final."""
        return self if self.request == "stop" else HeartbeatReply(request, self.number + 1)

    def after_checkpoint(self) -> "HeartbeatReply":
        """Return the reply after a checkpoint was committed, without the request for one."""
        return HeartbeatReply("none", self.number) if self.request == "checkpoint" else self


class ControllerStarted(NamedTuple):
    """Ray Train's controller has started."""

    controller: Any
    """Ray's handle of the controller."""


class WorkersStarting(NamedTuple):
    """Ray Train's controller is about to start a worker group."""

    num_workers: int
    controller: Any
    """Ray's handle of the controller, sent again because a restarted coordinator does not have it."""


class WorkersStarted(NamedTuple):
    """The processes of a worker group have started, but do not train yet."""

    workers: tuple[WorkerInfo, ...]


class StartFailed(NamedTuple):
    """A worker group failed before it began to train."""

    reason: str


class WorkerError(NamedTuple):
    """Ray's report of a failed worker."""

    text: str
    is_death: bool
    """Whether the worker's process died."""


class WorkersFailed(NamedTuple):
    """A worker group ended because workers failed."""

    errors: Mapping[int, WorkerError]
    """Errors by rank."""


class ControllerLost(NamedTuple):
    """Ray Train's controller ended before training did."""

    reason: str


TrainEvent = ControllerStarted | WorkersStarting | WorkersStarted | StartFailed | WorkersFailed | ControllerLost


class RunProgress(NamedTuple):
    """Progress of a run, for the driver to show and act on.

    Attributes:
        attempt: number of the current attempt.
        row: latest metrics, with their step; None before the first step.
        events: log lines for the user, in order, without those that the caller has already.
        num_events: number of log lines so far.
        num_steps_redone: number of steps computed again after restarts of this driver's workers.
        final_failure: reason that there is no further attempt; None while there may be one.
        is_stopped: whether the ranks have stopped, with their last checkpoint on disk.
        latest: checkpoint to resume from; None if there is none.
        workers: ranks of the latest group that began to train.
        may_save: whether a checkpoint can still come: a group is training, and all of its ranks send heartbeats.
        best: checkpoint with the best score, or the latest if none has a score; None if there is none.
        phase: what the worker group does.
        validated: latest checkpoint that was scored, with its scores; None before the first score.
        stopped_early: why the run ends before its last step; empty if it does not.
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
    may_save: bool = False
    best: CommittedCheckpoint | None = None
    phase: Phase = "waiting"
    validated: CommittedCheckpoint | None = None
    stopped_early: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinatorSettings:
    """Settings of a run's coordinator."""

    tracking_uri: str
    """Address of the MLflow tracker."""
    keep_best: int = 2
    """Number of checkpoints with the best scores to keep."""
    keep_last: int = 2
    """Number of latest checkpoints to keep."""
    stop_after: int = 0
    """Number of validations without a better score after which the coordinator stops training; 0 leaves that to the
    ranks, which know the scores if they validate."""
    batch_size: int = 1
    """Number of images in the batch of one step, over all ranks."""
    max_restarts: int = 3
    """Maximum number of restarts after crashes in a row, without a new checkpoint in between."""
    max_preemptions: int = 100
    """Maximum number of restarts after preemptions, under one driver."""
    hang_seconds: float = 600.0
    """Time without progress, in seconds, after which a rank counts as hung."""
    start_seconds: float = 660.0
    """Time, in seconds, within which the processes of a worker group must start."""
    driver_pid: int | None = None
    """Process id of the driver on this node, with which the coordinator ends; None if it runs on."""
    claim: Claim | None = None
    """The driver's claim on the checkpoints; None if they are in the run's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """Configuration of every rank of a run."""

    run: TrainRun
    coordinator: Any
    """Ray's handle of the run's coordinator."""
    config_text: str
    """Resolved configuration, as YAML."""
    lineage: dict[str, str]
    """Digests, commit and run id, stored with every checkpoint."""
    claim: Claim | None = None
    """The driver's claim on the checkpoints; None if they are in the run's folder."""
