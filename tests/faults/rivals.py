"""Commands that run beside the disturbed one: a first start that is killed, and a second owner of its checkpoints."""

import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.config import StorageConfig, TrackingConfig
from cluster.tracking.client import connect
from cluster.tracking.database import check_database
from tests.faults.scene import Scene
from tests.support.training_process import TrainingRun

_START_SECONDS = 120.0
_BIRTH_SECONDS = 4.0  # from the first file to the finished database, on two idle cores
_BAD_INPUT = 2


def kill_first_start(scene: Scene, choice: float) -> str | None:
    """Kill the first command in a new home folder while it makes the tracker there; the next command must find one."""
    home = Path(tempfile.mkdtemp(prefix="first-", dir=scene.run.home.parent))
    flags = _without(scene.run.flags, "--tracking.uri", "--checkpoints")
    run = TrainingRun(scene.cluster, home, "first", flags)
    run.start()
    try:
        scene.wait_until(lambda: list(home.glob("*mlflow.db*")) or list(home.glob(".mlflow.db*")), _START_SECONDS)
        born = time.time()
        scene.wait_until(lambda: time.time() >= born + choice * _BIRTH_SECONDS, _START_SECONDS)
        is_whole = check_database(home / "mlflow.db")
    finally:
        run.strike_driver(signal.SIGKILL)
    connect(TrackingConfig(), StorageConfig(home=home)).search_experiments()
    assert not list(home.glob(".mlflow.db.new*")), f"{home} has {sorted(home.iterdir())}"
    return f"killed with {'a whole' if is_whole else 'no'} tracker, and the next start found one"


def start_second_owner(scene: Scene, choice: float) -> str | None:
    """Start the same command with another home folder; it must be refused, for the checkpoints have an owner."""
    if not scene.is_reachable or scene.run.progress() is None:  # the claim may be free for a moment
        return None
    home = Path(tempfile.mkdtemp(prefix="second-", dir=scene.run.home.parent))
    rival = TrainingRun(scene.cluster, home, scene.run.name, scene.run.flags)
    rival.start()
    try:
        scene.wait_until(lambda: rival.code() is not None or scene.run.code() == 0, _START_SECONDS)
        if scene.run.code() == 0:
            return "the run ended first"
        assert rival.code() == _BAD_INPUT, f"the second owner ended with {rival.code()}:\n{rival.log_tail()}"
        assert "belong to process" in rival.log_tail(), rival.log_tail()
    finally:
        rival.stop()
    return "refused"


def _without(flags: Sequence[str], *names: str) -> list[str]:
    """Return flags without some of them and their values."""
    dropped = {at + offset for at, flag in enumerate(flags) if flag in names for offset in (0, 1)}
    return [flag for at, flag in enumerate(flags) if at not in dropped]
