"""Pruner: removes checkpoints that retention drops, in a background thread, because object stores may be slow."""

import logging
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path

from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import ClaimLostError
from cluster.runs.record import RECORD_NAME, RunRecord, store_of

_CHECKPOINT_FORM = re.compile(r"step-(\d+)-attempt-(\d+)")

logger = logging.getLogger(__name__)


class Pruner:
    """Removes the checkpoints that the record no longer lists, after every change of the record.

    A store outside the run's folder also receives a copy of the record, so that the run can resume if this machine is
    lost.

    Args:
        folder: folder of the run.
        record: record of the run, with the location of its checkpoints.
        require_owner: function that raises ``ClaimLostError`` if the checkpoints have another owner now.
    """

    def __init__(self, folder: Path, record: RunRecord, *, require_owner: Callable[[], None] = lambda: None) -> None:
        self._require_owner = require_owner
        self._store = store_of(folder, record.checkpoints_at)
        self._has_copy = record.checkpoints_at is not None
        self._records: queue.SimpleQueue[RunRecord] = queue.SimpleQueue()
        threading.Thread(target=self._prune_forever, daemon=True, name="captioning-pruner").start()

    def prune(self, record: RunRecord) -> None:
        """Schedule the removal of all checkpoints that this record does not list; return at once."""
        self._records.put(record)

    def _prune_forever(self) -> None:
        while True:
            record = self._records.get()
            while not self._records.empty():  # only the newest record matters
                record = self._records.get()
            try:
                self._require_owner()
                if self._has_copy:
                    self._store.put_file(RECORD_NAME, record.content())
                remove_uncounted(self._store, record, require_owner=self._require_owner)
            except ClaimLostError as error:
                logger.warning("nothing is removed: %s", error)
            except OSError as error:  # the next change of the record tries again
                logger.warning("old checkpoints could not be removed yet: %s", error)


def remove_uncounted(
    store: CheckpointStore, record: RunRecord, *, require_owner: Callable[[], None] = lambda: None
) -> None:
    """Remove the checkpoints that a record does not list, except what the current attempt may still be writing.

    Args:
        store: store of the run's checkpoints.
        record: record of the run.
        require_owner: function that is called before each removal, and raises if the record no longer counts.
    """
    counted = {*(checkpoint.name for checkpoint in record.checkpoints), *record.rejected}
    latest = record.latest.step if record.latest else -1
    for name in store.names():
        form = _CHECKPOINT_FORM.fullmatch(name)
        is_being_written = form and int(form[2]) == record.attempt and int(form[1]) > latest
        if form and name not in counted and not is_being_written:
            require_owner()
            store.remove(name)
