"""Processes that register a version or change a champion, each started from one that has all it needs in memory."""

import multiprocessing
import os
import random
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from mlflow import MlflowClient

from cluster.errors import GateRefusal
from cluster.promotion.promotion import promote, rollback
from cluster.registry import registration
from cluster.registry.models import ResolvedModel
from tests.support.registered_versions import judgement

STARTING = multiprocessing.get_context("forkserver")
_LOADED = ["cluster.promotion.promotion", "cluster.registry.registration", "cluster.tracking.client"]
STARTING.set_forkserver_preload(_LOADED)


# A client that is quick to try again, and silent.
_QUICK = {
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def yes(challenger, champion):
    return judgement(True)


def promote_version(address: str, name: str, version: int) -> None:
    """Promote a version."""
    os.environ |= _QUICK
    promote(name, MlflowClient(address, address), yes, version=version)


def register_once(address: str, model: ResolvedModel, name: str, package: Path) -> None:
    """Register a model, whose files are packaged already, as a version."""
    os.environ |= _QUICK
    registration.save_package = lambda *_, **__: package
    registration.register(model, name, MlflowClient(address, address))


def change_often(address: str, name: str, versions: list[int], seed: int, told: Connection) -> None:
    """Promote versions in turn and go back now and then; tell the entries of all changes that were made."""
    os.environ |= _QUICK
    client, chance, entries = MlflowClient(address, address), random.Random(seed), []
    for version in versions * 2:
        with suppress(GateRefusal):
            entries.append(promote(name, client, yes, version=version).change.entry)
        if chance.random() < 0.5:
            with suppress(RuntimeError, ValueError):  # overtaken, or nothing before
                entries.append(rollback(name, client).entry)
    told.send(entries)
