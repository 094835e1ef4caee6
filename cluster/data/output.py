"""Ownership of the place that a conversion or an extraction writes, so that two never write to one place at once.

A folder has a lock, which the kernel releases. A URL has a claim, as the checkpoints of a run have one; a process that
is killed leaves it behind, so that the next one waits until it is old, or goes on at once on the same machine.
"""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from cluster.errors import Refusal
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import Claim, renewed, this_process, token_of
from shards.storage.folders import ShardFolder, open_folder
from shards.storage.lock import sole_writer

logger = logging.getLogger(__name__)

_CLAIM_FOLDER = ".writer"
_LOOK_AGAIN_SECONDS = 5.0
_claim: ContextVar[Claim | None] = ContextVar("claim", default=None)


@contextmanager
def writing_to(location: ShardFolder | str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Own a place; wait while another process owns it, and log which one. Plan inside, because that one may write.

    Args:
        location: folder or URL to write.
        sleep: function that waits the given number of seconds before the next look at another process's claim.

    Raises:
        OSError: the place cannot be written.
    """
    folder = open_folder(location)
    with sole_writer(folder if isinstance(folder, Path) else _lock_folder(str(folder))):
        if isinstance(folder, Path):
            yield
            return
        store = CheckpointStore(f"{folder}/{_CLAIM_FOLDER}")
        claim = Claim(store, token_of(_lock_folder(str(folder))), this_process())
        _take(claim, str(folder), sleep)
        with renewed(claim):
            token = _claim.set(claim)
            try:
                yield
            finally:
                _claim.reset(token)


def require_owner() -> None:
    """Check, before a commit, that this process still owns the URL that it writes, if it writes to one.

    Raises:
        ClaimLostError: another process owns it, because this one was cut off for minutes.
    """
    if claim := _claim.get():
        claim.require()


def _lock_folder(url: str) -> Path:
    """Return a folder of this machine for a URL, which has the lock and the token of the machine's writers."""
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"captioning-writers-{os.getuid()}" / name


def _take(claim: Claim, url: str, sleep: Callable[[float], None]) -> None:
    is_logged = False
    while True:
        try:
            claim.take()
            return
        except Refusal as refusal:
            if not is_logged:
                logger.warning("%s is being written; waiting until that ends (%s)", url, refusal.found)
            is_logged = True
            sleep(_LOOK_AGAIN_SECONDS)
