"""Ray cluster of several raylets on this machine, with nodes and processes that can be killed, stopped and drained.

The head has no CPUs, so that no rank trains there: only drivers, controllers and coordinators run on it.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from cluster.resources.environment import set_library_defaults

NAMESPACE = "captioning"
# Ray notices a dead raylet within seconds; with its defaults, it takes a quarter of a minute.
_HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
_LOOK_EVERY_SECONDS = 0.2
_TITLES = {
    "worker": "ray::RayTrainWorker",
    "controller": "ray::TrainController",
    "coordinator": "ray::Coordinator",
}
# Processes of Ray itself, which run on any cluster.
_OF_RAY = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::_AutoscalingCoordinatorActor")


class LocalCluster:
    """A head without CPUs, and nodes.

    Args:
        num_nodes: number of nodes, without the head.
        cpus_per_node: CPUs of each node; a rank takes one.
    """

    def __init__(self, num_nodes: int, *, cpus_per_node: int = 1) -> None:
        from ray.cluster_utils import Cluster

        from cluster.resources.head import lean_head

        self._temporary = tempfile.mkdtemp(prefix="chaos-")  # short: a socket's path below it may have 107 bytes
        # Ray writes the address of the latest cluster below RAY_TMPDIR; a folder of its own keeps other processes
        # that look for a cluster by the address "auto" from finding this one.
        (Path(self._temporary) / "ray").mkdir()
        self._earlier_tmpdir = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = self._temporary
        self._cpus_per_node = cpus_per_node
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self._temporary, "_system_config": _HEALTH}
        with lean_head():
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        for _ in range(num_nodes):
            self.add_node()

    @property
    def address(self) -> str:
        """Return the cluster's address, host:port."""
        return self._cluster.address

    def add_node(self) -> Any:
        """Add a node, and wait until it has joined the cluster."""
        node = self._cluster.add_node(num_cpus=self._cpus_per_node, temp_dir=self._temporary, include_log_monitor=False)
        self.nodes.append(node)
        return node

    def kill_node(self, node: Any) -> None:
        """Kill a raylet and all processes on its node, as a power failure would."""
        raylet = _raylet(node)
        family = [raylet, *raylet.children(recursive=True)] if raylet else []
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family[1:], timeout=30)
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def drain_node(self, node: Any, *, seconds: int) -> None:
        """Announce the preemption of a node, as a cloud does before it takes a machine back.

        Args:
            node: node to drain.
            seconds: time until the node's deadline.

        Raises:
            RuntimeError: Ray rejected the request.
        """
        import ray
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = time.time_ns() // 1_000_000 + seconds * 1000
        is_accepted, message = ray._raylet.GcsClient(address=self.address).drain_node(
            node.node_id, reason, "preempted", deadline
        )
        if not is_accepted:
            raise RuntimeError(f"Ray rejected the drain of node {node.node_id}: {message}")

    def node_of(self, process: psutil.Process) -> Any:
        """Return the node that a worker runs on."""
        return next(node for node in self.nodes if (raylet := _raylet(node)) and process.ppid() == raylet.pid)

    def processes(self, kind: str) -> list[psutil.Process]:
        """Return the live processes of a kind: worker, loader, controller or coordinator."""
        if kind == "loader":
            return [child for worker in self.processes("worker") for child in _children(worker)]
        raylets = [_raylet(node) for node in [self._cluster.head_node, *self.nodes]]
        return [one for raylet in raylets if raylet for one in _children(raylet) if title(one) == _TITLES[kind]]

    def strays(self) -> list[str]:
        """Return the titles of this cluster's processes that belong to a job, whatever their parent process is."""
        return [title(process) for process in self._logging_here() if is_of_a_job(process)]

    def _logging_here(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):  # it has ended
                if Path(f"/proc/{process.pid}/fd/2").readlink().is_relative_to(self._temporary):
                    yield process

    def close(self) -> None:
        """Kill every process of the cluster, and remove Ray's files."""
        raylets = [_raylet(node) for node in [self._cluster.head_node, *self.nodes]]
        family = [child for raylet in raylets if raylet for child in raylet.children(recursive=True)]
        self._cluster.shutdown()
        os.environ.pop("RAY_TMPDIR", None)
        if self._earlier_tmpdir is not None:
            os.environ["RAY_TMPDIR"] = self._earlier_tmpdir
        for process in [*family, *self._logging_here()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)
        shutil.rmtree(self._temporary, ignore_errors=True)


@contextmanager
def local_cluster(num_nodes: int, *, cpus_per_node: int = 1) -> Iterator[LocalCluster]:
    """Yield a cluster to which this process is connected."""
    set_library_defaults()
    import ray

    cluster = LocalCluster(num_nodes, cpus_per_node=cpus_per_node)
    try:
        ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        try:
            yield cluster
        finally:
            ray.shutdown()
    finally:
        cluster.close()


def wait_until(condition: Callable[[], Any], claim: Callable[[], str], *, seconds: float) -> Any:
    """Poll a condition until it is true, and return its value.

    Args:
        condition: function that returns a true value once the condition holds.
        claim: function that returns a description of the condition, for the error message.
        seconds: timeout, in seconds.

    Raises:
        AssertionError: the condition did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {claim()}"
        time.sleep(_LOOK_EVERY_SECONDS)
    return found


def strike(process: psutil.Process, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process; after SIGKILL, wait until the process has ended."""
    process.send_signal(number)
    if number == signal.SIGKILL:
        psutil.wait_procs([process], timeout=10)


def _raylet(node: Any) -> psutil.Process | None:
    found = node.all_processes.get("raylet")
    try:
        return psutil.Process(found[0].process.pid) if found else None
    except psutil.NoSuchProcess:
        return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def title(process: psutil.Process) -> str:
    """Return the first word of a process, up to a dot, or an empty text if it has ended."""
    try:
        return (process.cmdline() or [""])[0].split(".")[0]
    except psutil.Error:
        return ""


def is_of_a_job(process: psutil.Process) -> bool:
    """Return whether a process is an actor or a task of a job, and no process of Ray itself."""
    return title(process).startswith("ray::") and title(process) not in _OF_RAY
