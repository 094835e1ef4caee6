"""MLflow server in its own process, which can be stopped and started again."""

import os
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.local_cluster import wait_until
from tests.support.ports import free_port


class Tracker:
    """MLflow server on a free port; the constructor starts it and waits until it answers.

    Args:
        folder: folder of its database and artifacts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        wait_until(self.is_up, lambda: "the MLflow server answers", seconds=90)

    @property
    def uri(self) -> str:
        """Return the server's address."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the server if it is down, without waiting until it answers."""
        if self._process:
            return
        places = ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        places += ["--artifacts-destination", str(self._folder / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", *places, "--port", str(self._port), "--workers", "1"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env=environment, **silent)

    def is_up(self) -> bool:
        """Return whether the server answers."""
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
            return answer.status == 200
        return False

    def stop(self) -> None:
        """Kill the server."""
        if not self._process:
            return
        family = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(family[1:], timeout=10)
        self._process = None
