"""Placement: a task or an actor on one node and no other. Importing this loads no Ray."""

from collections.abc import Callable
from functools import cache
from typing import Any


def on_node(node_id: str) -> Any:  # noqa: ANN401  Ray is imported late
    """Return the ``scheduling_strategy`` of a task or an actor that runs on this node or fails.

    Args:
        node_id: Ray's id of the node, in hex.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def task_on(node_id: str, function: Callable[..., Any]) -> Any:  # noqa: ANN401  Ray's remote functions have no type
    """Return a function of a module as a remote function that runs on a node, once, and reserves nothing there.

    On a node that is cut off its task neither runs nor fails: wait for it with a timeout.

    Args:
        node_id: Ray's id of the node, in hex.
        function: what to run there, defined at the top of a module.
    """
    return _remote(function).options(scheduling_strategy=on_node(node_id))


@cache  # Ray sends the code of each remote function to the cluster once, so all nodes share one
def _remote(function: Callable[..., Any]) -> Any:  # noqa: ANN401  as above
    import ray

    return ray.remote(num_cpus=0, max_retries=0)(function)
