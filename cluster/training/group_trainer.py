"""Ray Train's trainer without the parts that this project does not use, each of which costs a start a process.

Ray's own ``TorchTrainer`` starts three more actors for a worker group, and its controller imports torch: 7 CPU seconds
for each group. Its controller and workers get their variables in a runtime environment, for which Ray starts Python,
and imports itself, twice. What is overridden below is a private interface of Ray 2.60.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import (
    DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE,
    ENABLE_PREEMPTION_WATCHER_ENV_VAR,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
    PREEMPTION_POLL_INTERVAL_S_ENV_VAR,
    WORKER_GROUP_START_TIMEOUT_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
    get_env_vars_to_propagate,
)
from ray.train.v2._internal.execution import controller
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster.resources.environment import collect_garbage_rarely
from cluster.resources.placement import on_node

_SHUTDOWN_SECONDS = 30.0
# What a run does without: Ray Data, and Ray's cleaner of placement groups. The driver itself removes the groups of a
# killed controller (``cluster.resources.leftovers``); the cleaner cannot without a dashboard.
_UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback)
_OF_THE_CONTROLLER = {
    ENABLE_PREEMPTION_WATCHER_ENV_VAR,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
    PREEMPTION_POLL_INTERVAL_S_ENV_VAR,
    RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR,
    WORKER_GROUP_START_TIMEOUT_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
}


class GroupTrainer(DataParallelTrainer):
    """Trainer of one worker group whose processes form torch's process group."""

    def _create_default_callbacks(self) -> list[Any]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, _UNUSED)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:  # noqa: ANN401  as in Ray
        policy = arguments["scaling_policy"]
        if isinstance(policy, FixedScalingPolicy):
            arguments["scaling_policy"] = _FixedSize(policy.scaling_config)
        return _run_controller(**arguments)


def _run_controller(**arguments: Any) -> Any:  # noqa: ANN401  as in Ray
    """Run the controller on the node of this process to its end; return Ray's result."""
    environment = {RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR: DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE}
    actor_class: Any = ray.remote(num_cpus=0)(TrainController)
    here = on_node(ray.get_runtime_context().get_node_id())
    actor = actor_class.options(scheduling_strategy=here).remote(environment | get_env_vars_to_propagate(), **arguments)
    ray.get(actor.run.remote())
    return ray.get(actor.get_result.remote())


class _Group(WorkerGroup):
    """Worker group with a runtime environment only for variables of Ray Train that workers read."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:  # noqa: ANN401  as in Ray
        own = WorkerGroup._get_worker_runtime_env(custom_runtime_env)
        variables = {name: value for name, value in own.pop("env_vars").items() if name not in _OF_THE_CONTROLLER}
        return own | ({"env_vars": variables} if variables else {})


class TrainController(controller.TrainController):
    """Ray Train's controller; its actor has the name that Ray gives it.

    Args:
        environment: variables to set in this process.
        arguments: arguments of Ray's own controller.
    """

    worker_group_cls = _Group

    def __init__(self, environment: Mapping[str, str], **arguments: Any) -> None:  # noqa: ANN401  as in Ray
        os.environ.update(environment)
        super().__init__(**arguments)


class _FixedSize(FixedScalingPolicy):
    """Policy of a group of fixed size: its placement group alone tells Ray's autoscaler what it needs.

    Ray's policy also announces the need to an actor that shares out resources between Ray Train and Ray Data.
    """

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ANN401  as in Ray
        """Announce nothing."""

    def _maybe_send_resource_request(self) -> None:
        pass


@dataclass(frozen=True)
class ProcessGroupConfig(BackendConfig):
    """Settings of torch's process group; Ray's ``TorchConfig`` for a controller that does not import torch.

    Attributes:
        backend: ``gloo`` or ``nccl``.
    """

    backend: str

    @property
    def backend_cls(self) -> type[Backend]:
        """Return the class that sets up the process group."""
        return _ProcessGroup

    @property
    def train_func_context(self) -> Any:  # noqa: ANN401  as in Ray
        """Return a function that makes the context in which a worker trains."""
        return _device_context


class _ProcessGroup(Backend):
    """Sets up torch's process group on the workers, by the same functions as Ray's own backend of torch."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:  # noqa: ANN401  as in Ray
        """Have all workers join the group."""
        from ray.train._internal.utils import get_address_and_port

        address, port = worker_group.execute_single(0, get_address_and_port)
        joined = [
            worker_group.execute_single_async(
                rank, _join, backend_config.backend, rank, len(worker_group), address=address, port=port
            )
            for rank in range(len(worker_group))
        ]
        ray.get(joined)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:  # noqa: ANN401  as in Ray
        """Have all workers leave the group."""
        left = worker_group.execute_async(_leave, destroys=len(worker_group) > 1)
        try:
            ray.get(left, timeout=_SHUTDOWN_SECONDS)
        except GetTimeoutError:
            return  # their processes end next


def _device_context() -> Any:  # noqa: ANN401  Ray's private class
    from ray.train.torch.config import TorchConfigContextManager

    return TorchConfigContextManager()


def _join(backend: str, rank: int, world_size: int, *, address: str, port: int) -> None:
    collect_garbage_rarely()  # here, because the next line imports torch
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    _set_torch_distributed_env_vars()
    _setup_torch_process_group(backend, rank, world_size, "env://")


def _leave(*, destroys: bool) -> None:
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=destroys)
