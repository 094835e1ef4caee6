"""Processes that change a champion, each started from one that has all it needs in memory."""

import multiprocessing
import os
import random
from contextlib import suppress
from multiprocessing.connection import Connection

from mlflow import MlflowClient

from cluster.errors import GateRefusal
from cluster.promotion.promotion import promote, rollback
from tests.support.registered_versions import judgement

STARTING = multiprocessing.get_context("forkserver")
STARTING.set_forkserver_preload(["cluster.promotion.promotion", "cluster.tracking.client"])


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
