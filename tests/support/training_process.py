"""``captioning train`` in its own process against a cluster, with its live progress."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from cluster.config import StorageConfig, TrackingConfig
from cluster.runs.record import RunRecord, load_record
from cluster.tracking.client import connect
from tests.support.local_cluster import NAMESPACE, LocalCluster
from tests.support.repository import ROOT

_ANSWER_SECONDS = 5.0
_LOG_CHARACTERS = 4000


class Tick(NamedTuple):
    """One training step that was observed while a run trained.

    Attributes:
        at: time of the step, in seconds since 1970.
        step: number of steps done.
        attempt: number of the attempt that took the step.
        num_workers: number of workers of that attempt.
    """

    at: float
    step: int
    attempt: int
    num_workers: int


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of a job."""
    return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the environment of a job: this checkout's code, without the cluster or tracker of this process."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    # Seconds until the cluster has room for a group of workers; after that, Ray Train counts the nodes again.
    return kept | {"PYTHONPATH": str(ROOT), "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5"}


class TrainingRun:
    """Training run on a cluster. Its driver can be started again any number of times.

    Args:
        cluster: cluster to train on; the embedded one of each driver if None.
        home: home folder of the run.
        name: name of the run.
        flags: flags of ``captioning train``.
    """

    def __init__(self, cluster: LocalCluster | None, home: Path, name: str, flags: Sequence[str]) -> None:
        address = ["--cluster.address", cluster.address] if cluster else []
        self.flags = list(flags)
        self._arguments = [*flags, *address, "--home", str(home), "--name", name, "--json"]
        self.name, self.home, self.folder = name, home, home / "training" / name
        self._log = home / f"{name}.log"
        self._ticks: list[Tick] = []
        self.driver: subprocess.Popen[str] | None = None
        self.num_drivers = 0
        self.started_at = time.time()
        home.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start the driver, with the same command every time."""
        with self._log.open("a") as log:
            self.driver = subprocess.Popen(
                command("train", *self._arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=log, text=True
            )
        self.num_drivers += 1
        self.started_at = time.time()

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that the run has written into its folder."""
        return yaml.safe_load((self.folder / "config.yaml").read_text())

    def code(self) -> int | None:
        """Return the exit code of the driver; None while it runs."""
        return self.driver.poll() if self.driver else None

    def log_tail(self) -> str:
        """Return the end of the drivers' log."""
        return self._log.read_text(errors="replace")[-_LOG_CHARACTERS:]

    def stop(self) -> None:
        """Kill the driver if it runs."""
        if self.driver and self.driver.poll() is None:
            self.driver.kill()
        if self.driver:
            self.driver.wait()

    def strike_driver(self, number: int) -> None:
        """Send a signal to the driver, and wait until it has ended."""
        if self.driver is None:
            raise ValueError("no driver was started")
        self.driver.send_signal(number)
        self.driver.wait(timeout=60)

    def look(self) -> Tick | None:
        """Return the latest step and remember it; None if the coordinator does not answer or no step is done."""
        progress = self.progress()
        if progress is None or progress.row is None:
            return None
        at = progress.row.timestamp_ms / 1000
        if self._ticks and self._ticks[-1].at == at:  # a new attempt still reports the last step of the previous one
            return self._ticks[-1]
        tick = Tick(at, progress.row.step, progress.attempt, len(progress.workers))
        self._ticks.append(tick)
        return tick

    def progress(self) -> Any:
        """Return the progress that the coordinator reports; None if it does not answer."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        try:
            coordinator = ray.get_actor(f"coordinator{self.folder}", namespace=NAMESPACE)
            return ray.get(coordinator.progress.remote(), timeout=_ANSWER_SECONDS)
        except (ValueError, RayError, GetTimeoutError):  # the coordinator has not started, or has ended
            return None

    def standstill(self, at: float, *, attempt: int) -> float | None:
        """Return the seconds without a step after a given time, until a later attempt took one; None if none did.

        Args:
            at: given time, in seconds since 1970.
            attempt: number of the attempt that ran at that time.
        """
        later = next((number for number, tick in enumerate(self._ticks) if tick.at > at and tick.attempt > attempt), 0)
        return self._ticks[later].at - max(at, self._ticks[later - 1].at) if later else None

    @property
    def latest(self) -> Tick | None:
        """Return the latest step that was observed."""
        return self._ticks[-1] if self._ticks else None

    @property
    def record(self) -> RunRecord:
        """Return the run's record."""
        return load_record(self.folder) or RunRecord(name=self.name, identity={})

    @property
    def saved_step(self) -> int:
        """Return the step of the latest committed checkpoint."""
        latest = self.record.latest
        return latest.step if latest else 0

    def finish(self, *, seconds: float) -> None:
        """Wait until the driver has exited with code 0.

        Args:
            seconds: timeout, in seconds.

        Raises:
            AssertionError: the driver exited with another code.
        """
        assert self.driver is not None
        code = self.driver.wait(timeout=seconds)
        assert code == 0, f"the driver exited with code {code}:\n{self.log_tail()}"

    def driver_processes(self) -> list[psutil.Process]:
        """Return the live driver processes of this home folder."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = process.info["cmdline"] or []
            if str(self.home) in line and "jobs.cli" in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


def interrupt(run: TrainingRun) -> tuple[float, bool]:
    """Send SIGTERM to the driver; return the seconds until it ended, and whether it committed another checkpoint."""
    before, started = run.saved_step, time.monotonic()
    run.strike_driver(signal.SIGTERM)
    return time.monotonic() - started, run.saved_step > before


def tracked_runs(run: TrainingRun, uri: str | None) -> tuple[MlflowClient, list[Run]]:
    """Return the MLflow runs that have a run's name, with a client of their tracker.

    Args:
        run: run that has trained.
        uri: address of the tracker; the embedded tracker of the run's home folder if None.
    """
    client = connect(TrackingConfig(uri=uri), StorageConfig(home=run.home))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client, list(client.search_runs(experiments, f"attributes.run_name = '{run.name}'"))
