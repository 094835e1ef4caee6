"""Processes of actors, started before the actors are. What is used here is a private interface of Ray 2.60.

Ray starts an actor's process when the actor is created, so that actors that are created one after another wait for one
another's Python and imports. A process that was started earlier, for the same runtime environment, becomes the next
actor's. (``RAY_prestart_worker_first_driver`` starts some of no runtime environment alone.)
"""

import importlib
import json
import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

_KEPT_SECONDS = 120  # then Ray ends a process that no actor took
_ANSWER_SECONDS = 5
_FIRST_CALL = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"


def first_call(function: str) -> dict[str, str]:
    """Return the environment variable by which a process calls a function before it has an actor.

    Ray's own setting, ``worker_process_setup_hook``, is for whole jobs.

    Args:
        function: function without parameters, as ``package.module.function``, of an installed package: the process does
            not have the driver's search path yet.
    """
    return {_FIRST_CALL: function}


def can_prestart(resources: Mapping[str, float]) -> bool:
    """Return whether Ray will run this process's actors on this node, by the processes that were started ahead.

    That is so for a driver without a runtime environment, on a cluster of one node that has the resources.

    Args:
        resources: amounts that all actors need, by the resource's name.
    """
    import ray

    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return (
        context.worker.mode == ray.SCRIPT_MODE
        and not context.runtime_env
        and len(nodes) == 1
        and all(nodes[0]["Resources"].get(name, 0.0) >= amount for name, amount in resources.items())
    )


def prestart_processes(number: int, env_vars: Mapping[str, str], *, of_an_actor: bool = False) -> None:
    """Have Ray start processes for the next actors of this driver, where ``can_prestart``; does not wait for them.

    Without them, actors get processes when they are created. So a failure of this call is logged, and not raised.

    Args:
        number: number of processes.
        env_vars: all environment variables of the actors' runtime environment, which has nothing else.
        of_an_actor: whether an actor creates them, and not the driver. Ray compares runtime environments as texts, and
            writes that of an actor's actors without spaces.
    """
    try:
        _request(number, env_vars, of_an_actor=of_an_actor)
    except Exception as error:  # gRPC's errors among them: grpcio is a dependency of Ray, not of this project
        logger.debug("Ray starts no processes ahead (%s)", error)


def _request(number: int, env_vars: Mapping[str, str], *, of_an_actor: bool) -> None:
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.utils import get_runtime_env_info
    from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub
    from ray.runtime_env import RuntimeEnv

    node = next(node for node in ray.nodes() if node["Alive"])
    messages: Any = importlib.import_module("ray.core.generated.node_manager_pb2")
    request = messages.PrestartWorkersRequest(
        job_id=bytes.fromhex(ray.get_runtime_context().get_job_id()),
        num_workers=number,
        keep_alive_duration_secs=_KEPT_SECONDS,
    )
    if env_vars:
        info: Any = get_runtime_env_info(RuntimeEnv(env_vars=dict(env_vars)))
        if of_an_actor:
            content = json.loads(info.serialized_runtime_env)
            info.serialized_runtime_env = json.dumps(content, sort_keys=True, separators=(",", ":"))
        request.runtime_env_info.CopyFrom(info)
    channel: Any = init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
    try:
        NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=_ANSWER_SECONDS)
    finally:
        channel.close()
