"""The attempt that is running: whether a group of ranks trains, how its ranks failed, and what comes of it."""

from collections.abc import Callable, Mapping
from typing import Literal

from cluster.attempts import AttemptHistory, Ending, Failure, Verdict, deaths_of
from cluster.protocol import Place

Phase = Literal["waiting", "open", "closed"]  # for a group of ranks; one that trains; none


class CurrentAttempt:
    """Follows an attempt from the start of its group to its end; then the next.

    Args:
        history: decides whether a further attempt makes sense.
        batch_size: images a step.
        tell: notes an event for people.
        on_end: called when an attempt has ended.
    """

    def __init__(
        self,
        history: AttemptHistory,
        *,
        batch_size: int,
        tell: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> None:
        self._history, self._batch_size, self._tell, self._on_end = history, batch_size, tell, on_end
        self._failures: list[Failure] = []
        self._ending: Ending = "crash"
        self.phase: Phase = "waiting"
        self.verdict: Verdict | None = None
        self.step = 0
        """Last known number of steps done."""
        self._began_at: int | None = None

    def expect(self) -> None:
        """Wait for a group of ranks that is about to start."""
        self._start("waiting")

    def begin(self, step: int) -> None:
        """Note that a group has begun, at a step."""
        self._start("open")
        self.step = self._began_at = step

    def _start(self, phase: Phase) -> None:
        if self.phase == "open":
            self.end()
        self._failures, self._ending, self.phase = [], "crash", phase
        self._began_at = None

    def fail(self, failure: Failure) -> None:
        """Note how a rank failed; if all fail alike, the attempt is over, and there is no further one."""
        if self.phase == "closed":
            return
        self._failures.append(failure)
        if not failure.is_collateral:
            self._tell(f"rank {failure.rank} failed at step {failure.step}: {failure.reason}")
        if failure.is_agreed:
            self.end()

    def lose(self, exceptions: Mapping[int, tuple[str, bool]]) -> None:
        """End with what Ray says of a group that failed: by rank, a text, and whether the process is gone."""
        if self.phase == "closed":
            return
        told = {failure.rank for failure in self._failures}
        deaths = {rank: text for rank, (text, is_death) in exceptions.items() if is_death}
        others = {rank: text for rank, (text, is_death) in exceptions.items() if not is_death and rank not in told}
        lost = deaths_of(deaths, step=self.step, batch_size=self._batch_size)
        lost += [one._replace(is_death=False) for one in deaths_of(others, step=self.step, batch_size=self._batch_size)]
        if self._ending == "crash":
            for failure in lost:
                self._tell(f"rank {failure.rank} is gone, after step {failure.step}: {failure.reason}")
            if not lost and self._failures and all(failure.is_collateral for failure in self._failures):
                self._tell(f"a rank is gone that others waited for, after step {self.step}")
        self._failures += lost
        self.end()

    def hang(self, place: Place, seconds: float) -> None:
        """Note that a rank gave no sign of life, or got no further."""
        if self.phase == "closed":
            return
        reason = f"{place} gave no sign of progress for {seconds:.0f} s (--cluster.hang-seconds)"
        self._tell(f"{'the workers hang' if self.phase == 'open' else 'the start of the workers hangs'}: {reason}")
        self._failures.append(self._death(reason, place))

    def crash(self, reason: str) -> None:
        """End by something else than a rank, such as the death of Train's controller."""
        self._failures.append(self._death(reason))
        self._tell(f"the attempt failed: {reason}")
        self.end()

    def leave(self, ending: Ending) -> None:
        """Note that the attempt is going to end by no fault of its own."""
        self._ending = ending

    def end(self) -> None:
        """End the attempt, and decide whether there is to be a further one."""
        self.phase = "closed"
        self._on_end()
        has_trained = self._began_at is not None and self.step > self._began_at
        self.verdict = self.verdict or self._history.end(self._ending, self._failures, has_trained=has_trained)

    def _death(self, reason: str, place: Place | None = None) -> Failure:
        rank, node = (place.rank, place.host) if place else (-1, "unknown")
        return Failure(rank, self.step, self.step * self._batch_size, reason, is_death=True, node=node)
