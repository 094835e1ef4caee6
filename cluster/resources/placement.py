"""Placement of a task or an actor on one given node. Importing this module does not import Ray."""

from collections.abc import Callable
from functools import cache
from typing import Any


def on_node(node_id: str) -> Any:  # noqa: ANN401  Ray is imported late
    """Return the ``scheduling_strategy`` for a task or an actor that must run on this node, or fail.

    Args:
        node_id: Ray's id of the node, in hex.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def task_on(node_id: str, function: Callable[..., Any]) -> Any:  # noqa: ANN401  Ray's remote functions have no type
    """Return a remote function that runs once on a node, without retries, and reserves no resources there.

    On a node without network, a task neither runs nor fails: wait for it with a timeout.

    Args:
        node_id: Ray's id of the node, in hex.
        function: function to run there, defined at the top level of a module.
    """
    return _remote(function).options(scheduling_strategy=on_node(node_id))


@cache  # Ray uploads the code once per remote function, so all nodes share one remote function
def _remote(function: Callable[..., Any]) -> Any:  # noqa: ANN401  as above
    import ray

    return ray.remote(num_cpus=0, max_retries=0)(function)
