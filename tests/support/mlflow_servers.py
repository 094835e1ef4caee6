"""MLflow's own servers for tests: a tracking server with passwords, and a model server."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from cluster.resources.environment import set_library_defaults
from cluster.resources.session import cluster_session
from tests.support.ports import free_port

ADMIN = "admin"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Tracker:
    """Tracking server with MLflow's basic-auth app."""

    folder: Path
    port: int
    password: str
    process: subprocess.Popen

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def environment(self, user=ADMIN, password=None):
        """Return the environment of a process that uses this server, as a given user."""
        return without_mlflow() | self.variables(user, password)

    def variables(self, user=ADMIN, password=None):
        """Return the environment variables that give MLflow's client this server and a user."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password or self.password,
        }


def without_mlflow():
    """Return this process's environment without any tracking server or user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CAPTIONING_"))}
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def tracker(folder):
    """Run a tracking server with its files in a folder; yield it."""
    port, password = free_port(), f"secret-{secrets.token_hex(12)}"
    settings = (
        "[mlflow]",
        "default_permission = READ",
        f"database_uri = sqlite:///{folder}/users.db",
        f"admin_username = {ADMIN}",
        "auth_cache_ttl_seconds = 60",  # otherwise every request hashes the password, which takes 0.1 s or more
    )
    (folder / "basic_auth.ini").write_text("\n".join(settings))
    environment = without_mlflow() | {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(12),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [BIN / "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "artifacts"]
    command += ["--workers", "1"]
    with running(command, environment, folder / "server.log") as process:
        wait_until_it_answers(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield Tracker(folder, port, password, process)


@contextlib.contextmanager
def served(command, environment, log):
    """Run a model server; yield its address.

    Args:
        command: command line of the server, without the port, which is appended.
        environment: environment variables of the server.
        log: file for the server's output; the server runs in the file's folder.
    """
    port = free_port()
    with running([*command, str(port)], environment, log) as process:
        wait_until_it_answers(f"http://127.0.0.1:{port}/ping", process, log)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def cluster_of_user(server):
    """Make this process and the workers of an embedded Ray cluster users of a tracking server."""
    set_library_defaults()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.variables().items():
            patch.setenv(name, value)
        with cluster_session(ClusterConfig()):
            yield


@contextlib.contextmanager
def running(command, environment, log):
    """Run a server during the ``with`` block, with its output in a file."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(map(str, command)), env=environment, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def wait_until_it_answers(url, process, log, *, seconds=180):
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, f"the server exited with code {process.returncode}:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"no answer within {seconds} s:\n{log.read_text()[-3000:]}"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return


def post(address, body):
    """Send a request for captions; return the HTTP status and the answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
