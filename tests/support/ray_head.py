"""Ray head with a dashboard, and the command line run against it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from cluster.resources.environment import set_library_defaults
from cluster.submission.address import check_server
from cluster.submission.archive import PACKAGES
from tests.support import command_line
from tests.support.ports import free_port
from tests.support.repository import ROOT


@contextmanager
def job_head(*, num_gpus=0, **variables):
    """Run a Ray head with two CPUs; yield the address of its dashboard, once it answers.

    Args:
        num_gpus: number of GPUs that the head declares, without having any.
        variables: environment variables of the head, in addition to those of this process.
    """
    set_library_defaults()
    scratch = tempfile.mkdtemp(prefix="r-")  # short: Ray's sockets lie deep below it
    port, agent = free_port(), free_port()
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_DISABLE_IMPORT_WARNING": "1"}
    options = ["--port", f"{free_port()}", "--dashboard-port", f"{port}", "--dashboard-agent-listen-port", f"{agent}"]
    sizes = ["--num-cpus", "2", "--num-gpus", f"{num_gpus}", "--object-store-memory", "80000000"]
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "start", "--head", "--block", "--include-dashboard", "true", "--temp-dir", scratch]
    environment = os.environ | path | variables
    with Path(scratch, "ray-start.log").open("wb") as log:
        streams = {"stdout": log, "stderr": subprocess.STDOUT}
        head = subprocess.Popen([*command, *options, *sizes], env=environment, start_new_session=True, **streams)
    try:
        yield _when_it_answers(f"http://127.0.0.1:{port}", head, Path(scratch))
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)
        shutil.rmtree(scratch, ignore_errors=True)


def _when_it_answers(address, head, scratch):
    deadline = time.monotonic() + 180
    while True:
        assert head.poll() is None, f"ray start ended with {head.returncode}:\n{_last_words(scratch)}"
        try:
            check_server(address)
        except PermissionError:
            return address
        except ConnectionError:
            assert time.monotonic() < deadline, f"no dashboard answers at {address}:\n{_last_words(scratch)}"
            time.sleep(0.5)
        else:
            return address


def _last_words(scratch):
    logs = [scratch / "ray-start.log", *scratch.glob("session_latest/logs/dashboard*")]
    return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)


def code_that(text, folder):
    """Write a code folder with this project's packages, all empty but for ``jobs/cli.py``; return it.

    Args:
        text: content of ``jobs/cli.py``.
        folder: folder to write.
    """
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    (folder / "jobs" / "cli.py").write_text(text)
    return folder


def captioning(address, *arguments, folder=None, **variables):
    """Run a command line in this process, against the cluster at a dashboard's address."""
    return command_line.captioning(*arguments, folder=folder, RAY_API_SERVER_ADDRESS=address, **variables)


def captioning_process(address, *arguments, **variables):
    """Run a command line in a new process, because Ray reads its authentication settings once per process."""
    environment = os.environ | {"RAY_API_SERVER_ADDRESS": address, "PYTHONPATH": f"{ROOT}"} | variables
    command = [sys.executable, "-W", "ignore", "-m", "jobs.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return SimpleNamespace(code=done.returncode, out=done.stdout, told=done.stderr)
