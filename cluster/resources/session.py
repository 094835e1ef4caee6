"""Connection to a Ray cluster, or start of an embedded one."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from cluster.config import ClusterConfig
from cluster.errors import Refusal, Unreachable, one_line
from cluster.resources.environment import set_library_defaults
from shards.storage.location import refuse_credentials

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 4


@contextmanager
def cluster_session(config: ClusterConfig) -> Iterator[None]:
    """Connect to the configured cluster, or start an embedded one, until the end of the block.

    If this process has a Ray session already, use that one.

    Raises:
        Unreachable: no cluster answers at the address, or it rejects this process.
        Refusal: the path of the folder of temporary files is too long for an embedded cluster.
    """
    set_library_defaults()
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    address = named_address(config) or "local"
    _require_answer(address)
    if address == "local":
        # Nobody takes the only node away, and Ray's actor that watches for it costs each attempt a second.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        logger.info("starting Ray on this machine")
    else:
        logger.info("connecting to the Ray cluster at %s", address)
    try:
        _connect(address)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise Unreachable(
            f"cannot connect to a Ray cluster at {address} ({one_line(error, with_kind=False)})",
            "start it, or correct --cluster.address",
        ) from error
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        raise Refusal(
            f"the folder of temporary files is too long a path for Ray's sockets ({one_line(error, with_kind=False)})",
            "set RAY_TMPDIR to a short one, such as /tmp/ray",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    import ray

    from cluster.resources.head import lean_head
    from cluster.resources.search_path import driver_code_first

    with lean_head() if address == "local" else nullcontext():
        ray.init(
            address=address,
            job_config=driver_code_first(),
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def named_address(config: ClusterConfig) -> str | None:
    """Return the cluster's address from the settings or RAY_ADDRESS; None for the embedded cluster.

    Raises:
        ValueError: RAY_ADDRESS contains credentials.
    """
    address = config.address or os.environ.get("RAY_ADDRESS")
    refuse_credentials(address, "RAY_ADDRESS")
    return None if address == "local" else address


def _require_answer(address: str) -> None:
    """Check that Ray of this version answers at host:port; Ray itself would retry for more than a minute.

    Other forms of address, such as auto and local, pass unchecked.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return
    import ray

    from cluster.resources.gcs import ask_version

    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        reason = one_line(error, with_kind=False)
        raise Unreachable(
            f"no Ray cluster answers at {address} ({reason})", "start it, or correct --cluster.address"
        ) from error
    try:
        version = ask_version(address)
    except PermissionError as error:
        raise Unreachable(
            f"the Ray cluster at {address} requires a token ({error})", "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from error
    except ConnectionError as error:
        raise Unreachable(
            f"what answers at {address} is not a Ray cluster ({error})",
            "use the port of its control service (6379 by default), not the dashboard's port (8265)",
        ) from error
    if version != ray.__version__:
        raise Unreachable(
            f"the Ray cluster at {address} runs Ray {version}, and this process runs {ray.__version__}",
            "install the same version on both sides",
        )
