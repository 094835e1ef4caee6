"""The probe of one node: whether a job can read, write and connect there.

A read from a mount with a dead server hangs forever, so each subject is probed in its own thread.
"""

import hashlib
import importlib
import os
import platform
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from cluster.errors import one_line
from cluster.runs.checkpoint_store import CheckpointStore

PROBE_SECONDS = 20.0
"""Time in seconds after which a probe reports the unanswered subjects as hung."""
GLOO_INTERFACES = "GLOO_SOCKET_IFNAME"
"""Environment variable with the network interfaces, separated by commas, that gloo connects the workers through."""
_CONNECT_SECONDS = 5.0
_NOT_SHARED = "it does not see a file that another node wrote there"
_PACKAGES = ("captioning", "cluster", "jobs", "shards")
_ASK_TORCH = "import torch; print(torch.__version__, torch.version.cuda or 'none', torch.cuda.is_available())"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRequest:
    """Requirements of a job on a node."""

    home: Path
    """Folder that the node must be able to see and write."""
    files: tuple[str, ...] = ()
    """Paths or URLs of files that the node must be able to read."""
    checkpoints: str | None = None
    """URL that the node must be able to write."""
    tracker: tuple[str, int] | None = None
    """Host and port that the node must be able to reach."""
    use_gpu: bool = False
    """Whether torch must find the node's GPUs."""
    token: str = ""
    """Name of a file in the home folder that the node must see; empty if none could be written."""
    checkpoint_token: str = ""
    """Name of a file at the URL of checkpoints that the node must see; empty if none could be written."""


class ProbeResult(NamedTuple):
    """The result of a probe.

    Attributes:
        versions: versions that must be the same on all nodes, by name (Ray, Python, captioning).
        faults: faults by subject (home, files, network, checkpoints, tracker, gpu), one line each.
    """

    versions: Mapping[str, str]
    faults: Mapping[str, str]


def probe(request: ProbeRequest) -> ProbeResult:
    """Probe everything in a request on this node."""
    subjects: dict[str, Callable[[ProbeRequest], str]] = {
        "home": _probe_home,
        "files": _probe_files,
        "network": _probe_network,
    }
    if request.checkpoints:
        subjects["checkpoints"] = _probe_checkpoints
    if request.tracker:
        subjects["tracker"] = _probe_tracker
    if request.use_gpu:
        subjects["gpu"] = _probe_gpu
    found: dict[str, str] = {}

    def run(subject: str) -> None:
        try:
            found[subject] = subjects[subject](request)
        except Exception as error:  # every filesystem raises what its own library does
            found[subject] = one_line(error)

    # Daemon threads, so that one that hangs does not keep the process alive.
    threads = [threading.Thread(target=run, args=(subject,), daemon=True) for subject in subjects]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silence = f"no answer within {PROBE_SECONDS:g} s"
    faults = {subject: found.get(subject, silence) for subject in subjects}
    return ProbeResult(versions(), {subject: fault for subject, fault in faults.items() if fault})


def _probe_home(request: ProbeRequest) -> str:
    if request.token and not (request.home / request.token).is_file():
        return _NOT_SHARED
    own = request.home / f".probe-{uuid.uuid4().hex}"
    own.touch()
    own.unlink()
    return ""


def _probe_files(request: ProbeRequest) -> str:
    for file in request.files:
        folder, _, name = file.rpartition("/")
        if "://" not in file:
            with Path(file).open("rb") as opened:
                opened.read(1)
        elif CheckpointStore(folder, sleep=do_not_wait).get_file(name) is None:
            return f"{file} does not exist"
    return ""


def _probe_network(request: ProbeRequest) -> str:
    """Look for the interfaces that gloo is told to use; it would fail in every attempt, and say so in a log only."""
    there = [name for _, name in socket.if_nameindex()]
    missing = [name for name in os.environ.get(GLOO_INTERFACES, "").split(",") if name and name not in there]
    return f"{GLOO_INTERFACES} names {missing[0]}, and the interfaces are {', '.join(there)}" if missing else ""


def _probe_checkpoints(request: ProbeRequest) -> str:
    store, name = CheckpointStore(str(request.checkpoints), sleep=do_not_wait), f".probe-{uuid.uuid4().hex}"
    if request.checkpoint_token and store.get_file(request.checkpoint_token) is None:
        return _NOT_SHARED
    store.put_file(name, b"probe")
    is_there = store.get_file(name) == b"probe"
    store.remove_file(name)
    return "" if is_there else "a file written there cannot be read back"


def _probe_tracker(request: ProbeRequest) -> str:
    if request.tracker:
        socket.create_connection(request.tracker, timeout=_CONNECT_SECONDS).close()
    return ""


def _probe_gpu(request: ProbeRequest) -> str:
    """Ask torch in a separate process, because Ray hides the GPUs from a task that reserves none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-W", "ignore", "-c", _ASK_TORCH]  # in a thread, for which the probe waits only so long
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        return f"torch does not load: {(answer.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    release, cuda, is_available = answer.stdout.split()[-3:]
    if cuda == "none":
        return f"torch {release} is a build without CUDA"
    return "" if is_available == "True" else f"torch {release} (CUDA {cuda}) finds no GPU"


def do_not_wait(seconds: float) -> None:
    """Return at once instead of waiting before a retry, because a probe has little time."""


def tracker_endpoint(uri: str) -> tuple[str, int] | None:
    """Return host and port of a tracking URI; None if it has none, as for a database file."""
    parts = urlsplit(uri)
    ports = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
    port = parts.port or ports.get(parts.scheme.partition("+")[0])
    return (parts.hostname, port) if parts.hostname and port else None


@cache
def versions() -> dict[str, str]:
    """Return the versions that must be the same on every node, by name."""
    import ray

    return {"Ray": ray.__version__, "Python": platform.python_version(), "captioning": _own_version()}


def _own_version() -> str:
    """Return the release and a digest of the code, because two checkouts of one release may differ."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        folder = Path(str(importlib.import_module(package).__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder)}\n".encode() + path.read_bytes())
    try:
        release = version("captioning")
    except PackageNotFoundError:
        release = "not installed"
    return f"{release} (code {digest.hexdigest()[:8]})"
