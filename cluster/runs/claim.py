"""Claim on the checkpoints at a URL: one home folder owns them, and the start of another one is refused.

A claim is a numbered file beside the checkpoints, created only if it does not exist; the highest number counts. The
driver renews its claim. One that was not renewed for minutes may be followed by the next number, so its owner, which
may be alive and only cut off, looks at the claim before it commits or removes a checkpoint.
"""

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cluster.config import StorageConfig
from cluster.errors import Refusal
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.record import store_of
from shards.storage.files import replace_file

logger = logging.getLogger(__name__)

RENEW_SECONDS = 30.0
YOUNG_SECONDS = 180.0  # several renewals may fail before others take the claim for abandoned
TOKEN_NAME = "claim-token"
_FORM = re.compile(r"owner-(\d+)\.json")
_RELEASE_SECONDS = 1.0  # Ray sends SIGKILL to a stopped job 3 s after SIGTERM


class ClaimLostError(RuntimeError):
    """Another home folder owns the checkpoints now."""


class Owner(NamedTuple):
    """The content of a claim."""

    token: str
    holder: str
    """Process, host and folder of the owner, for messages."""
    renewed: float
    """Time of the last renewal, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on a store; can be pickled, and looked at in any process.

    Args:
        store: store of the checkpoints.
        token: secret of the home folder: a claim with the same token is its own, of an earlier start.
        holder: process, host and folder of the owner, for messages.
        clock: function that returns the time in seconds since 1970.
    """

    store: CheckpointStore
    token: str
    holder: str
    clock: Callable[[], float] = time.time

    def take(self, *, by_force: bool = False) -> None:
        """Become the owner.

        Args:
            by_force: whether to replace another owner even if it has renewed its claim lately.

        Raises:
            Refusal: another home folder has renewed its claim lately, or the store cannot tell one owner from two.
            OSError: the store does not answer.
        """
        while True:
            number, owner = self._current()
            if owner and owner.token == self.token:
                self._write(number)
                return
            if owner and not by_force:
                self._refuse_young(owner)
            try:
                self.store.create_file(_name(number + 1), self._content())
            except FileExistsError:  # another process was faster, or the store has lost its answer to this one
                continue
            self._require_create_only(number + 1)
            if owner:
                logger.warning("took the files at %s over from %s", self.store, owner.holder)
            for one in self._numbers():
                if one <= number:
                    self.store.remove_file(_name(one))
            return

    def require(self) -> None:
        """Check that this home folder still owns the checkpoints.

        Raises:
            ClaimLostError: another one does, or none.
            OSError: the store does not answer.
        """
        self._own_number()

    def renew(self) -> None:
        """Show that the owner is alive; raises as ``require``."""
        self._write(self._own_number())

    def release(self) -> None:
        """Give the checkpoints up; raises as ``require``."""
        self.store.remove_file(_name(self._own_number()))

    def _own_number(self) -> int:
        number, owner = self._current()
        if owner is None or owner.token != self.token:
            whose = f"belong to {owner.holder}" if owner else "were taken over by another process"
            raise ClaimLostError(f"the files at {self.store} {whose}; this process stores none there any more")
        return number

    def _require_create_only(self, number: int) -> None:
        """Check that the store has not ignored that a file must not exist: it would let two become owners."""
        try:
            self.store.create_file(_name(number), self._content())
        except FileExistsError:
            return
        self.store.remove_file(_name(number))
        raise Refusal(
            f"the store at {self.store} replaces files that must only be created (it ignores If-None-Match), so two "
            "processes could write there at once",
            "use a store that supports it, such as S3, or a folder that all nodes mount",
        )

    def _refuse_young(self, owner: Owner) -> None:
        age = self.clock() - owner.renewed
        if age < YOUNG_SECONDS:
            raise Refusal(
                f"the files at {self.store} belong to {owner.holder}, which showed {max(0, age):.0f} s ago that "
                "it is alive",
                "wait for it, or stop it; if it has ended, use --take-over, or wait until its last heartbeat is "
                f"{YOUNG_SECONDS:.0f} s old",
            )

    def _current(self) -> tuple[int, Owner | None]:
        """Return the number that counts and its owner; 0 and None if nobody owns the store."""
        while True:
            number = max(self._numbers(), default=0)
            if not number:
                return 0, None
            content = self.store.get_file(_name(number))
            if content is not None:  # else it was removed meanwhile
                return number, _parse(content, self.clock())

    def _numbers(self) -> list[int]:
        return [int(form[1]) for name in self.store.file_names() if (form := _FORM.fullmatch(name))]

    def _write(self, number: int) -> None:
        self.store.put_file(_name(number), self._content())

    def _content(self) -> bytes:
        return json.dumps(Owner(self.token, self.holder, self.clock())._asdict()).encode()


def _name(number: int) -> str:
    return f"owner-{number}.json"


def _parse(content: bytes, now: float) -> Owner:
    try:
        return Owner(**json.loads(content))
    except (ValueError, TypeError):  # cut off while it was created in a folder
        return Owner("", "an unknown process", now)


@contextmanager
def claimed(folder: Path, storage: StorageConfig) -> Iterator[Claim | None]:
    """Own the checkpoints of a run or a search, and renew the claim in a thread; None if they are in its folder.

    Args:
        folder: folder of the run or the search.
        storage: its settings.

    Raises:
        Refusal: another home folder owns them.
        OSError: their location does not answer.
    """
    if storage.checkpoints is None:
        yield None
        return
    claim = Claim(store_of(folder, storage.checkpoints), token_of(folder), f"{this_process()}, which runs {folder}")
    claim.take(by_force=storage.take_over)
    with renewed(claim):
        yield claim


def this_process() -> str:
    """Return this process as messages name it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def renewed(claim: Claim) -> Iterator[None]:
    """Renew a claim in a thread until the end of the block, then give it up."""
    is_over = threading.Event()
    thread = threading.Thread(target=_renew_until, args=(claim, is_over), daemon=True, name="captioning-claim")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(_RELEASE_SECONDS)  # a claim that is not released in time becomes old


def token_of(folder: Path) -> str:
    """Return the token of a folder, such as a run's, which is written at the first call."""
    path = folder / TOKEN_NAME
    if not path.is_file():
        replace_file(path, uuid.uuid4().hex.encode())
    return path.read_text()


def _renew_until(claim: Claim, is_over: threading.Event) -> None:
    while not is_over.wait(RENEW_SECONDS):
        try:
            claim.renew()
        except ClaimLostError as error:
            logger.warning("%s", error)
            return
        except OSError as error:
            logger.warning("the claim on the checkpoints could not be renewed: %s", error)
    with contextlib.suppress(OSError, ClaimLostError):
        claim.release()
