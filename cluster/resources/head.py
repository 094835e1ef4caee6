"""Head of the embedded cluster: Ray's own, without the processes that no embedded cluster needs.

Even without a dashboard, Ray 2.60 starts its server and waits for it. It also starts a monitor for an autoscaler, and
one that sends logs to the driver. Then it looks once a second whether the node has registered. All of this takes 3 of
the 5 s in which Ray starts and ends, and 1.4 CPU seconds.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import node as ray_node

_REGISTERED_SECONDS = 30.0
_POLL_SECONDS = 0.02


class _Head(ray_node.Node):
    """Head node with Ray's control service, a raylet and the raylet's agents alone."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Start no dashboard."""

    def start_monitor(self) -> None:
        """Start no autoscaler."""

    def start_log_monitor(self) -> None:
        """Start nothing that sends logs to the driver."""

    def start_ray_processes(self) -> None:
        """Start the raylet, and wait until it has registered; Ray then finds it at its first look."""
        super().start_ray_processes()
        client: Any = self.get_gcs_client()
        deadline = time.monotonic() + _REGISTERED_SECONDS
        while time.monotonic() < deadline and not client.get_all_node_info(timeout=_REGISTERED_SECONDS):
            time.sleep(_POLL_SECONDS)


@contextmanager
def lean_head() -> Iterator[None]:
    """Make ``ray.init`` start this module's head while the block runs; Ray has no setting for it."""
    original = ray_node.Node
    ray_node.Node = _Head
    try:
        yield
    finally:
        ray_node.Node = original
