"""Restart policy: how a run's attempts ended, and whether to try again; pure, so that every rule has tests.

An attempt is one start of the worker group. It ends by a crash, or for a reason that is no fault of the run: a node
that was taken away with notice, another number of workers, a request to stop. Crashes are counted in a row: a
checkpoint between two of them shows that the run makes progress, and starts the count anew. A crash that comes back
the same at the same step is the program's or the data's own, and no number of restarts mends it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cluster.errors import one_line

Ending = Literal["crash", "preemption", "resize"]

_SAME_ERRORS_THAT_END = 2
_SAME_DEATHS_THAT_END = 3
_NUMBERS = re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{16,}\b|\d+")
# What a rank says when another one is gone: true, and not the cause.
_COLLATERAL = re.compile(
    r"gloo|nccl|DistBackendError|DistNetworkError|connection (was )?(closed|reset)|broken pipe|timed out waiting"
    r"|ActorDiedError|ActorUnavailableError|actor died|DistStoreError",
    re.IGNORECASE,
)
# What a rank says of its own loader process that was killed.
_LOADER_DEATH = re.compile(r"DataLoader worker .*(exited unexpectedly|is killed by signal)")
_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|MemoryError|memory usage threshold", re.IGNORECASE)
_TELLING = (_OUT_OF_MEMORY, re.compile(r"has been hanging for|exit detail|died because|is dead|unexpectedly"))


class Failure(NamedTuple):
    """How one rank of an attempt failed.

    Attributes:
        rank: number of the rank; -1 if it was none, such as the controller.
        step: number of steps done when it failed.
        position: position in the stream at which the step that failed begins.
        reason: one line.
        node: host that it ran on.
        log: last lines of its log or traceback.
        is_agreed: whether every rank fails alike, so that another attempt would, too.
        is_death: whether the process was gone without a word.
    """

    rank: int
    step: int
    position: int
    reason: str
    node: str = "unknown"
    log: tuple[str, ...] = ()
    is_agreed: bool = False
    is_death: bool = False

    @property
    def is_collateral(self) -> bool:
        """Return whether it only says that another process was gone."""
        return not self.is_agreed and not self.is_death and bool(_COLLATERAL.search(self.reason))

    def signature(self) -> tuple[int, bool, str]:
        """Return what is the same in a failure that comes back: the step, and the reason without its numbers."""
        return self.step, self.is_death, _NUMBERS.sub("N", self.reason) + (f" {self.rank}" if self.is_death else "")


class FinalFailure(NamedTuple):
    """Why there is no further attempt.

    Attributes:
        why: rule by which no further one makes sense.
        cause: failure that ended the last one, if it is known.
    """

    why: str
    cause: Failure | None


def cause_of(failures: Iterable[Failure]) -> Failure | None:
    """Return the failure that explains the others: what a rank itself did, then a death, then what came of it."""
    ordered = sorted(failures, key=lambda one: (one.is_collateral, one.is_death, not one.is_agreed))
    return ordered[0] if ordered else None


@dataclass(slots=True)
class AttemptHistory:
    """The endings of a run's attempts under one driver.

    Args:
        max_restarts: greatest number of crashes in a row, without a checkpoint between them.
        max_preemptions: greatest number of nodes taken away with notice, in all.
    """

    max_restarts: int
    max_preemptions: int
    _num_preemptions: int = 0
    _crashes_in_a_row: int = 0
    _causes: list[Failure] = field(default_factory=list)

    def note_checkpoint(self) -> None:
        """Start to count crashes anew."""
        self._crashes_in_a_row = 0

    def end(self, ending: Ending, failures: Iterable[Failure], *, has_trained: bool = True) -> FinalFailure | None:
        """Note how an attempt ended; return why it was the last one, or None.

        Args:
            ending: kind of the ending.
            failures: failures that are known.
            has_trained: whether it took a step; attempts that are killed before end at the same step by no fault of it.
        """
        if ending == "resize":
            return None
        if ending == "preemption":
            self._num_preemptions += 1
            if self._num_preemptions > self.max_preemptions:
                return FinalFailure(
                    f"nodes were taken away {self._num_preemptions} times (--cluster.max-preemptions)", None
                )
            return None
        cause = cause_of(failures)
        self._crashes_in_a_row += 1
        if not has_trained and (cause is None or _is_unexplained(cause)):
            self._causes.clear()
        else:
            self._causes.append(cause or Failure(-1, -1, -1, "no rank reported why", is_death=True))
        return self._final_failure(cause)

    def _final_failure(self, cause: Failure | None) -> FinalFailure | None:
        if cause and cause.is_agreed:
            return FinalFailure("every worker failed alike", cause)
        same = self._same_in_a_row()
        if cause and same >= (_SAME_DEATHS_THAT_END if _is_unexplained(cause) else _SAME_ERRORS_THAT_END):
            return FinalFailure(f"the same happened {same} times in a row at the same step", cause)
        if self._crashes_in_a_row > self.max_restarts:
            times = f"{self._crashes_in_a_row} times" if self._crashes_in_a_row > 1 else "once"
            return FinalFailure(f"it failed {times} without a checkpoint in between (--cluster.max-restarts)", cause)
        return None

    def _same_in_a_row(self) -> int:
        if not self._causes:
            return 0
        last = self._causes[-1].signature()
        same = 0
        for cause in reversed(self._causes):
            if cause.signature() != last:
                break
            same += 1
        return same


def _is_unexplained(cause: Failure) -> bool:
    """Return whether somebody may just have killed a process, which is no sign of a fault."""
    is_kill = cause.is_death or cause.is_collateral or bool(_LOADER_DEATH.search(cause.reason))
    return is_kill and not _OUT_OF_MEMORY.search(cause.reason)


def deaths_of(exceptions: Mapping[int, str], *, step: int, batch_size: int) -> list[Failure]:
    """Turn Ray's words on ranks that are gone into failures.

    Args:
        exceptions: text by rank.
        step: last known number of steps done.
        batch_size: images of a step.
    """
    found = []
    for rank, text in sorted(exceptions.items()):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = next(
            (line for form in _TELLING for line in lines if form.search(line)), lines[0] if lines else "died"
        )
        found.append(Failure(rank, step, step * batch_size, one_line(telling), is_death=True))
    return found
