"""Restart policy: decides from how a run's attempts ended whether to start another. Pure, so that every rule is tested.

An attempt is one start of the worker group. It ends by a crash, or for a reason that is not the run's fault: a
preempted node, a change of the number of workers, a request to stop. Crashes are counted in a row: a checkpoint between
two of them shows that the run makes progress, and resets the count. A crash that repeats at the same step is caused by
the program or the data, and restarts cannot fix it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cluster.errors import one_line

Ending = Literal["crash", "preemption", "resize"]

# Kills from outside may hit the same step twice by chance, so a death needs one repetition more than an error.
_SAME_ERRORS_THAT_END = 2
_SAME_DEATHS_THAT_END = 3
# Addresses, ids and counters differ between two occurrences of the same error.
_NUMBERS = re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{16,}\b|\d+")
# Errors that a rank raises because another rank died: symptoms, not the cause.
_COLLATERAL = re.compile(
    r"gloo|nccl|DistBackendError|DistNetworkError|connection (was )?(closed|reset)|broken pipe|timed out waiting"
    r"|ActorDiedError|ActorUnavailableError|actor died|DistStoreError",
    re.IGNORECASE,
)
# Errors that a rank raises because its own loader process was killed.
_LOADER_DEATH = re.compile(r"DataLoader worker .*(exited unexpectedly|is killed by signal)")
_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|MemoryError|memory usage threshold", re.IGNORECASE)
_TELLING = (_OUT_OF_MEMORY, re.compile(r"has been hanging for|exit detail|died because|is dead|unexpectedly"))


class Failure(NamedTuple):
    """How one rank of an attempt failed.

    Attributes:
        rank: number of the rank; -1 if another process failed, such as the controller.
        step: number of steps done when the rank failed.
        position: index, in the training stream, of the first sample of the failed step.
        reason: cause of the failure, on one line.
        node: host that the rank ran on.
        log: last lines of the rank's traceback.
        is_agreed: whether every rank raised the same error, so that another attempt would fail too.
        is_death: whether the process died without raising an error.
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
        """Return whether the rank failed only because another process died."""
        return not self.is_agreed and not self.is_death and bool(_COLLATERAL.search(self.reason))

    def signature(self) -> tuple[int, bool, str]:
        """Return what two occurrences of the same failure share: the step, and the reason without its numbers."""
        return self.step, self.is_death, _NUMBERS.sub("N", self.reason) + (f" {self.rank}" if self.is_death else "")


class FinalFailure(NamedTuple):
    """Reason that there is no further attempt.

    Attributes:
        why: rule of the restart policy that ended the run.
        cause: failure that ended the last attempt; None if unknown.
    """

    why: str
    cause: Failure | None


def cause_of(failures: Iterable[Failure]) -> Failure | None:
    """Return the failure that explains the others: a rank's own error before a death before a collateral error."""
    ordered = sorted(failures, key=lambda one: (one.is_collateral, one.is_death, not one.is_agreed))
    return ordered[0] if ordered else None


@dataclass(slots=True)
class AttemptHistory:
    """Endings of a run's attempts under one driver.

    Args:
        max_restarts: maximum number of restarts after crashes in a row, without a new checkpoint in between.
        max_preemptions: maximum number of restarts after preemptions, under this driver.
    """

    max_restarts: int
    max_preemptions: int
    _num_preemptions: int = 0
    _crashes_in_a_row: int = 0
    _causes: list[Failure] = field(default_factory=list)

    def note_checkpoint(self) -> None:
        """Reset the count of crashes in a row."""
        self._crashes_in_a_row = 0

    def end(self, ending: Ending, failures: Iterable[Failure], *, has_trained: bool = True) -> FinalFailure | None:
        """Record how an attempt ended; return why it was the last one, or None if another may follow.

        Args:
            ending: kind of the ending.
            failures: known failures of the attempt.
            has_trained: whether the attempt took a step.
        """
        if ending == "resize":
            return None
        if ending == "preemption":
            self._num_preemptions += 1
            if self._num_preemptions > self.max_preemptions:
                times = _times(self._num_preemptions)
                return FinalFailure(f"nodes were preempted {times} (--cluster.max-preemptions)", None)
            return None
        cause = cause_of(failures)
        self._crashes_in_a_row += 1
        # Attempts that are killed before their first step all end at the same step, which proves nothing.
        if not has_trained and (cause is None or _is_unexplained(cause)):
            self._causes.clear()
        else:
            self._causes.append(cause or Failure(-1, -1, -1, "no rank reported why", is_death=True))
        return self._final_failure(cause)

    def _final_failure(self, cause: Failure | None) -> FinalFailure | None:
        if cause and cause.is_agreed:
            return FinalFailure("every worker failed with the same error", cause)
        same = self._same_in_a_row()
        if cause and same >= (_SAME_DEATHS_THAT_END if _is_unexplained(cause) else _SAME_ERRORS_THAT_END):
            return FinalFailure(f"the same failure occurred {same} times in a row at the same step", cause)
        if self._crashes_in_a_row > self.max_restarts:
            times = _times(self._crashes_in_a_row)
            return FinalFailure(f"training failed {times} without a new checkpoint (--cluster.max-restarts)", cause)
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
    """Return whether a kill from outside explains the failure, so that it need not be the run's fault."""
    is_kill = cause.is_death or cause.is_collateral or bool(_LOADER_DEATH.search(cause.reason))
    return is_kill and not _OUT_OF_MEMORY.search(cause.reason)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def deaths_of(exceptions: Mapping[int, str], *, step: int, batch_size: int) -> list[Failure]:
    """Convert Ray's reports of dead ranks to failures.

    Args:
        exceptions: Ray's error texts, by rank.
        step: number of steps done, as last reported.
        batch_size: number of images in the batch of one step, over all ranks.
    """
    found = []
    for rank, text in sorted(exceptions.items()):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = next(
            (line for form in _TELLING for line in lines if form.search(line)), lines[0] if lines else "died"
        )
        found.append(Failure(rank, step, step * batch_size, one_line(telling), is_death=True))
    return found
