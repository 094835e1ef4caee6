"""What Train's controller tells the coordinator of: worker groups that start, fail, or get another size.

Ray's hooks for its controller are its developers' own; they are used here and nowhere else. They neither raise nor wait
for MLflow. The controller can do without them: a run then only knows less of why an attempt ended.
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

from cluster.coordination.messages import WorkerInfo
from cluster.errors import one_line

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 0.2
_DEATHS = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)


class TellOfFailures(UserCallback):
    """Tells the coordinator of ranks that failed or are gone.

    Args:
        coordinator: Ray's handle.
    """

    def __init__(self, coordinator: Any) -> None:  # noqa: ANN401  no type at Ray
        self._coordinator = coordinator

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ANN401
        """Pass on what Ray says of each rank."""
        told = {rank: (str(error), isinstance(error, _DEATHS)) for rank, error in worker_exceptions.items()}
        self._coordinator.lose.remote(told)


class TellOfGroups(ControllerCallback, WorkerGroupCallback):
    """Tells the coordinator of the controller and its worker groups, and saves the state before a resize.

    Args:
        coordinator: Ray's handle.
        room_seconds: that a resize waits for a checkpoint at most.
    """

    def __init__(self, coordinator: Any, *, room_seconds: float) -> None:  # noqa: ANN401  as above
        self._coordinator, self._room_seconds = coordinator, room_seconds

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:  # noqa: ANN401
        """Tell of a group whose processes failed to start, which Ray would try for ever."""
        error = getattr(getattr(current_state, "training_failed_error", None), "controller_failure", None)
        if isinstance(error, WorkerGroupStartupFailedError):
            self._coordinator.fail_to_start.remote(one_line(error, with_kind=False))

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ANN401
        """Hand over the controller, so that the driver can end it."""
        self._hand_over()

    def on_controller_start_worker_group(self, *, scaling_config: Any, num_workers: int) -> None:  # noqa: ANN401
        """Tell that a worker group is about to start; a coordinator that was killed has forgotten the controller."""
        self._hand_over()
        self._coordinator.expect_group.remote(num_workers)

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Tell where the ranks are, so that one that hangs before it says a word is noticed; Ray waits for ever."""
        self._coordinator.watch_start.remote([_place(number, worker) for number, worker in enumerate(workers)])
        return {}

    def _hand_over(self) -> None:
        self._coordinator.attach.remote(ray.get_runtime_context().current_actor)

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:  # noqa: ANN401
        """Have the state written before a healthy group gives way to one of another size."""
        try:
            before = ray.get(self._coordinator.make_room.remote(resize_decision.num_workers))
            deadline = time.monotonic() + self._room_seconds
            while before is not None and time.monotonic() < deadline:
                if ray.get(self._coordinator.has_room.remote(before)):
                    return
                time.sleep(_LOOK_EVERY_SECONDS)
        except RayError as error:  # without the coordinator no attempt starts anyway
            logger.warning("no checkpoint before the resize: %s", error)


def _place(number: int, worker: Any) -> WorkerInfo:  # noqa: ANN401  no type at Ray
    context, where = worker.distributed_context, worker.metadata
    rank = context.world_rank if context else number
    return WorkerInfo(rank=rank, node_id=where.node_id, host=where.hostname, pid=where.pid, log="", actor=worker.actor)
