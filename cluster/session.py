"""Connecting to a Ray cluster, or starting the embedded one."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.config import ClusterConfig
from cluster.environment import set_ray_defaults

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5


@contextmanager
def cluster_session(config: ClusterConfig) -> Iterator[None]:
    """Hold a connection to the cluster, or an embedded one that ends with it; inside another session, hold that one.

    Raises:
        ConnectionError: no cluster answers at the address.
    """
    set_ray_defaults()
    import ray

    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    _require_answer(address)
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({str(error).splitlines()[0]}); "
            "start it, or correct --cluster.address"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse an address where nothing listens, which Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}); start it, or correct --cluster.address"
        ) from error
