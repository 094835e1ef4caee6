"""Imports of a rank, for its process to make before Ray Train asks it for anything."""

import importlib
from contextlib import suppress

from cluster.resources.environment import collect_garbage_rarely


def preload() -> None:
    """Import what a rank imports; an import that fails will fail again in the rank, which reports it."""
    collect_garbage_rarely()
    for module in ("cluster.worker.worker", "ray.train.torch.config"):
        with suppress(Exception):
            importlib.import_module(module)
