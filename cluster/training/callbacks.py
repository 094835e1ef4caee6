"""Callbacks of Ray Train's controller: notify the coordinator of worker groups that start, fail or are resized.

Ray's controller hooks are a private API (``ray.train.v2._internal``), used in this file only. The callbacks never raise
and never wait for MLflow. Training works without them, but the run then knows less about why an attempt ended.
"""

import logging
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import UserCallback
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from cluster.coordination.messages import (
    ANSWER_SECONDS,
    ControllerStarted,
    StartFailed,
    TrainEvent,
    WorkerError,
    WorkerInfo,
    WorkersFailed,
    WorkersStarted,
    WorkersStarting,
)
from cluster.errors import one_line

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
# The errors with which Ray reports a worker whose process or node is gone, rather than one that raised.
_DEATHS = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)


class FailureCallback(UserCallback):
    """Notifies the coordinator of ranks that raised an error or died.

    Args:
        coordinator: Ray's actor handle of the coordinator.
    """

    def __init__(self, coordinator: Any) -> None:  # noqa: ANN401  Ray has no type for a handle
        self._coordinator = coordinator

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ANN401
        """Notify of each rank's error, as Ray reports it."""
        errors = {
            rank: WorkerError(str(error), isinstance(error, _DEATHS)) for rank, error in worker_exceptions.items()
        }
        self._coordinator.notify.remote(WorkersFailed(errors))


class WorkerGroupNotifier(ControllerCallback, WorkerGroupCallback):
    """Notifies the coordinator of the controller and its worker groups, and requests a checkpoint before each resize.

    Args:
        coordinator: Ray's actor handle of the coordinator.
        resize_wait_seconds: longest time, in seconds, that a resize waits for the checkpoint.
    """

    def __init__(self, coordinator: Any, *, resize_wait_seconds: float) -> None:  # noqa: ANN401  as above
        self._coordinator, self._resize_wait_seconds = coordinator, resize_wait_seconds

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:  # noqa: ANN401
        """Notify of a worker group that failed to start; Ray itself would retry forever."""
        error = getattr(getattr(current_state, "training_failed_error", None), "controller_failure", None)
        if isinstance(error, WorkerGroupStartupFailedError):
            self._notify(StartFailed(one_line(error, with_kind=False)))

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ANN401
        """Send the controller's actor handle, so that the driver can abort it."""
        self._notify(ControllerStarted(ray.get_runtime_context().current_actor))

    def on_controller_start_worker_group(self, *, scaling_config: Any, num_workers: int) -> None:  # noqa: ANN401
        """Notify of a worker group that is about to start."""
        self._notify(WorkersStarting(num_workers, ray.get_runtime_context().current_actor))

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Notify of the workers' nodes and processes before they train.

        The coordinator can then detect a worker that hangs before its first heartbeat; Ray would wait for it forever.
        """
        self._notify(WorkersStarted(tuple(_worker_info(number, worker) for number, worker in enumerate(workers))))
        return {}

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:  # noqa: ANN401
        """Wait for a checkpoint before Ray replaces a healthy worker group by one of another size."""
        try:
            before = self._ask("request_resize", resize_decision.num_workers)
            deadline = time.monotonic() + self._resize_wait_seconds
            while before is not None and time.monotonic() < deadline:
                if self._ask("may_resize", before):
                    return
                time.sleep(_POLL_SECONDS)
        except RayError as error:  # the coordinator is gone; no attempt starts until it is back
            logger.warning("no checkpoint before the resize: %s", error)

    def _ask(self, method: str, argument: int) -> Any:  # noqa: ANN401  as the method returns
        return ray.get(getattr(self._coordinator, method).remote(argument), timeout=ANSWER_SECONDS)

    def _notify(self, event: TrainEvent) -> None:
        self._coordinator.notify.remote(event)


def _worker_info(number: int, worker: Any) -> WorkerInfo:  # noqa: ANN401  Ray's private class
    context, where = worker.distributed_context, worker.metadata
    rank = context.world_rank if context else number
    return WorkerInfo(rank=rank, node_id=where.node_id, host=where.hostname, pid=where.pid, log="", actor=worker.actor)
