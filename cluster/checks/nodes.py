"""Probes of all nodes of a cluster, in parallel.

A task on a node that lost its connection never returns, so the wait for each node is limited.
"""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from cluster.checks.probe import PROBE_SECONDS, ProbeRequest, ProbeResult, do_not_wait, probe
from cluster.errors import last_line
from cluster.resources.gcs import Node, list_nodes
from cluster.resources.placement import task_on
from cluster.runs.checkpoint_store import CheckpointStore

_ANSWER_SECONDS = 30.0  # longer than a probe takes at most (PROBE_SECONDS)


class NodeReport(NamedTuple):
    """The report of one node.

    Attributes:
        address: IP address of the node.
        num_gpus: number of the node's GPUs, as Ray counts them.
        result: result of the probe; None if it did not finish.
        fault: reason why there is no result; else empty.
    """

    address: str
    num_gpus: float
    result: ProbeResult | None
    fault: str = ""


def probe_nodes(request: ProbeRequest, *, is_embedded: bool) -> list[NodeReport]:
    """Probe every node of this session's cluster; a node that dies during the probe is left out.

    Args:
        request: requirements of the job on every node.
        is_embedded: whether this process started the cluster; its one node is then probed in this process.
    """
    with _tokens(request) as request:
        return _probe_here(request) if is_embedded else _probe_all(request)


@contextmanager
def _tokens(request: ProbeRequest) -> Iterator[ProbeRequest]:
    """Create files that every node must see, then remove them; if one cannot be written, the nodes report why."""
    token, is_new, location = f".probe-{uuid.uuid4().hex}", not request.home.exists(), request.checkpoints
    with contextlib.suppress(OSError):
        request.home.mkdir(parents=True, exist_ok=True)
        (request.home / token).touch()
        request = replace(request, token=token)
    if location and _is_done_in_time(lambda: CheckpointStore(location, sleep=do_not_wait).put_file(token, b"probe")):
        request = replace(request, checkpoint_token=token)
    try:
        yield request
    finally:
        if location and request.checkpoint_token:
            _is_done_in_time(lambda: CheckpointStore(location, sleep=do_not_wait).remove_file(token))
        if request.token:
            (request.home / token).unlink(missing_ok=True)
        if is_new and request.home.is_dir() and not any(request.home.iterdir()):
            request.home.rmdir()


def _is_done_in_time(work: Callable[[], None]) -> bool:
    done: list[bool] = []

    def run() -> None:
        with contextlib.suppress(Exception):  # every filesystem raises what its own library does
            work()
            done.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(done)


def _probe_here(request: ProbeRequest) -> list[NodeReport]:
    (node,) = list_nodes()
    return [NodeReport(node.address, _num_gpus(node), probe(_for_node(request, node)))]


def _probe_all(request: ProbeRequest) -> list[NodeReport]:
    import ray

    tasks = {task_on(node.id, probe).remote(_for_node(request, node)): node for node in list_nodes()}
    ended, silent = ray.wait(list(tasks), num_returns=len(tasks), timeout=_ANSWER_SECONDS)
    for task in silent:
        ray.cancel(task, force=True)
    alive = {node.id for node in list_nodes()}
    reports = []
    for task, node in tasks.items():
        outcome = _outcome(task) if task in ended else f"no answer within {_ANSWER_SECONDS:g} s"
        if isinstance(outcome, ProbeResult):
            reports.append(NodeReport(node.address, _num_gpus(node), outcome))
        elif outcome and node.id in alive:
            reports.append(NodeReport(node.address, _num_gpus(node), None, outcome))
    return reports


def _for_node(request: ProbeRequest, node: Node) -> ProbeRequest:
    """Return the job's requirements on this node: GPUs only if it has any."""
    return replace(request, use_gpu=request.use_gpu and _num_gpus(node) > 0)


def _num_gpus(node: Node) -> float:
    return node.total.get("GPU", 0.0)


def _outcome(task: Any) -> ProbeResult | str | None:  # noqa: ANN401  Ray's references have no type
    """Return a probe's result, or why it failed; None if its node died, or is draining and accepts no task."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(task)
    except RayTaskError as error:  # for example, captioning is missing there or is another version
        return f"the probe failed: {last_line(error)}"
    except RayError:
        return None
