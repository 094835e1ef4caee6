"""What a node of a cluster finds when it looks whether a job can run there.

Reading from a mount whose server is gone hangs for ever, so that each thing is looked at in a thread of its own.
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

LOOK_SECONDS = 20.0
_CONNECT_SECONDS = 5.0
_BLIND = "it does not see what is there"
_PACKAGES = ("captioning", "cluster", "jobs", "shards")
_ASK_TORCH = "import torch; print(torch.__version__, torch.version.cuda or 'none', torch.cuda.is_available())"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a node is asked."""

    home: Path
    """Folder that it must see and write."""
    files: tuple[str, ...] = ()
    """Paths or URLs that it must read."""
    checkpoints: str | None = None
    """URL that it must write."""
    tracker: tuple[str, int] | None = None
    """Host and port that it must reach."""
    use_gpu: bool = False
    """Whether torch must find its GPUs, if it has any."""
    token: str = ""
    """Name of a file in the home folder, which is there while the question is asked."""
    checkpoint_token: str = ""
    """Likewise where checkpoints lie."""


class Report(NamedTuple):
    """What a node found.

    Attributes:
        versions: of what must be the same everywhere, by name.
        faults: what does not work, by subject (home, files, checkpoints, tracker, gpu); one line each.
    """

    versions: Mapping[str, str]
    faults: Mapping[str, str]


def look(question: Question) -> Report:
    """Look at everything, on this node."""
    subjects: dict[str, Callable[[Question], str]] = {"home": _look_at_home, "files": _look_at_files}
    if question.checkpoints:
        subjects["checkpoints"] = _look_at_checkpoints
    if question.tracker:
        subjects["tracker"] = _look_at_tracker
    if question.use_gpu:
        subjects["gpu"] = _look_at_gpu
    found: dict[str, str] = {}

    def note(subject: str) -> None:
        try:
            found[subject] = subjects[subject](question)
        except Exception as error:  # every filesystem raises what its own library does
            found[subject] = one_line(error)

    threads = [threading.Thread(target=note, args=(subject,), daemon=True) for subject in subjects]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LOOK_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silence = f"no answer within {LOOK_SECONDS:g} s"
    faults = {subject: found.get(subject, silence) for subject in subjects}
    return Report(versions(), {subject: fault for subject, fault in faults.items() if fault})


def _look_at_home(question: Question) -> str:
    if question.token and not (question.home / question.token).is_file():
        return _BLIND
    own = question.home / f".probe-{uuid.uuid4().hex}"
    own.touch()
    own.unlink()
    return ""


def _look_at_files(question: Question) -> str:
    for file in question.files:
        folder, _, name = file.rpartition("/")
        if "://" not in file:
            with Path(file).open("rb") as opened:
                opened.read(1)
        elif CheckpointStore(folder, sleep=go_on).get_file(name) is None:
            return f"{file} is not there"
    return ""


def _look_at_checkpoints(question: Question) -> str:
    store, name = CheckpointStore(str(question.checkpoints), sleep=go_on), f".probe-{uuid.uuid4().hex}"
    if question.checkpoint_token and store.get_file(question.checkpoint_token) is None:
        return _BLIND
    store.put_file(name, b"probe")
    is_there = store.get_file(name) == b"probe"
    store.remove_file(name)
    return "" if is_there else "what is written there is not there to read"


def _look_at_tracker(question: Question) -> str:
    if question.tracker:
        socket.create_connection(question.tracker, timeout=_CONNECT_SECONDS).close()
    return ""


def _look_at_gpu(question: Question) -> str:
    """Ask torch in a process of its own: Ray hides the GPUs from a task that reserves none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-W", "ignore", "-c", _ASK_TORCH]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if asked.returncode:
        return f"torch does not load: {(asked.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    release, cuda, is_available = asked.stdout.split()[-3:]
    if cuda == "none":
        return f"torch {release} there is a build without CUDA"
    return "" if is_available == "True" else f"torch {release} (CUDA {cuda}) there finds no GPU"


def go_on(seconds: float) -> None:
    """Do not wait before another attempt: a probe has little time."""


def tracker_of(uri: str) -> tuple[str, int] | None:
    """Return host and port of a tracking address; None for one without, such as a database file."""
    parts = urlsplit(uri)
    ports = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
    port = parts.port or ports.get(parts.scheme.partition("+")[0])
    return (parts.hostname, port) if parts.hostname and port else None


@cache
def versions() -> dict[str, str]:
    """Return the versions of what must be the same on every node, by name."""
    import ray

    return {"Ray": ray.__version__, "Python": platform.python_version(), "captioning": _own_version()}


def _own_version() -> str:
    """Return the release, and a digest of the code: two checkouts of one release may differ."""
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
