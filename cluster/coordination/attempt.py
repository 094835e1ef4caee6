"""The attempt that is running: whether a group of ranks trains, hangs or fails, and what comes of it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from cluster.coordination.messages import CoordinatorSettings, WorkerInfo
from cluster.coordination.restart_policy import AttemptHistory, Ending, Failure, Verdict, deaths_of
from cluster.coordination.watchdog import Watch

Phase = Literal["waiting", "open", "closed"]  # for a group of ranks; one that trains; none

_SILENT_SECONDS = 10.0  # after which a rank is not going to write a checkpoint soon


class CurrentAttempt:
    """Follows an attempt from the start of its group to its end; then the next.

    Args:
        settings: of the run.
        tell: notes an event for people.
        kill: ends the ranks at these places when one of them hangs.
        end_controller: ends Train's controller when a group does not start.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        *,
        tell: Callable[[str], None],
        kill: Callable[[Sequence[WorkerInfo]], None],
        end_controller: Callable[[Any], None],
    ) -> None:
        self._batch_size, self._tell, self._end_controller = settings.batch_size, tell, end_controller
        self._history = AttemptHistory(settings.max_restarts, settings.max_preemptions)
        self._failures: list[Failure] = []
        self._ending: Ending = "crash"
        self._phase: Phase = "waiting"
        self._began_at: int | None = None
        self.verdict: Verdict | None = None
        self.step = 0
        """Last known number of steps done."""
        self.places: tuple[WorkerInfo, ...] = ()
        """Of the ranks of the last group that began."""
        self.controller: Any = None
        """Ray's handle of Train's controller, once it is known."""
        self._deciding = threading.RLock()  # the watch has a thread of its own
        self._watch = Watch(
            self._hang,
            self._lose_start,
            hang_seconds=settings.hang_seconds,
            start_seconds=settings.start_seconds,
            kill=kill,
        )

    @property
    def is_open(self) -> bool:
        """Return whether a group of ranks trains."""
        return self._phase == "open"

    def expect(self, num_workers: int) -> None:
        """Wait for a group of ranks that is about to start."""
        with self._deciding:
            self._start("waiting")
            self._watch.expect()
            self._tell(f"starting {num_workers} workers")

    def watch_start(self, places: Sequence[WorkerInfo]) -> None:
        """Learn where the ranks of a group are that has just started, of which none may hang before it begins."""
        with self._deciding:
            if self._phase == "waiting":
                self._watch.begin(places)

    def begin(self, step: int, places: Sequence[WorkerInfo]) -> None:
        """Note that a group has begun, at a step."""
        with self._deciding:
            self._start("open")
            self.step = self._began_at = step
            self.places = tuple(places)
            self._watch.begin(places)

    def _start(self, phase: Phase) -> None:
        if self.is_open:
            self._end()
        self._failures, self._ending, self._phase = [], "crash", phase
        self._began_at = None

    def note_life(self, rank: int, progress: int) -> None:
        """Take a rank's sign of life; ``progress`` grows as long as it gets on."""
        self._watch.note(rank, progress)

    def note_checkpoint(self) -> None:
        """Note that a checkpoint counts, and so the run gets on."""
        self._history.note_checkpoint()

    def note_stopped(self) -> None:
        """Note that the ranks have stopped; from now on none of them can hang."""
        self._watch.end()

    def may_save(self) -> bool:
        """Return whether a group trains of which no rank is silent, so that a checkpoint may come."""
        return self.is_open and self._watch.seconds_silent() <= _SILENT_SECONDS

    def fail(self, failure: Failure) -> None:
        """Note how a rank failed; if all fail alike, the attempt is over, and there is no further one."""
        with self._deciding:
            if self._phase == "closed":
                return
            self._failures.append(failure)
            if not failure.is_collateral:
                self._tell(f"rank {failure.rank} failed at step {failure.step}: {failure.reason}")
            if failure.is_agreed:
                self._end()

    def lose(self, exceptions: Mapping[int, tuple[str, bool]]) -> None:
        """End with what Ray says of a group that failed: by rank, a text, and whether the process is gone."""
        with self._deciding:
            if self._phase == "closed":
                return
            lost = self._lost(exceptions)
            if self._ending == "crash":
                for failure in lost:
                    self._tell(f"rank {failure.rank} is gone, after step {failure.step}: {failure.reason}")
                if not lost and self._failures and all(failure.is_collateral for failure in self._failures):
                    self._tell(f"a rank is gone that others waited for, after step {self.step}")
            self._failures += lost
            self._end()

    def _lost(self, exceptions: Mapping[int, tuple[str, bool]]) -> list[Failure]:
        """Return the failures of ranks that are gone, and of those that did not tell how they failed."""
        told = {failure.rank for failure in self._failures}
        deaths = {rank: text for rank, (text, is_death) in exceptions.items() if is_death}
        others = {rank: text for rank, (text, is_death) in exceptions.items() if not is_death and rank not in told}
        lost = deaths_of(deaths, step=self.step, batch_size=self._batch_size)
        untold = deaths_of(others, step=self.step, batch_size=self._batch_size)
        return lost + [one._replace(is_death=False) for one in untold]

    def _hang(self, place: WorkerInfo, seconds: float) -> None:
        """Note that a rank gave no sign of life, or got no further."""
        with self._deciding:
            if self._phase == "closed":
                return
            reason = f"{place} gave no sign of progress for {seconds:.0f} s (--cluster.hang-seconds)"
            self._tell(f"{'the workers hang' if self.is_open else 'the start of the workers hangs'}: {reason}")
            self._failures.append(self._death(reason, place))

    def _lose_start(self, seconds: float) -> None:
        """End Train's controller, which waits for ever for a worker that hangs before it says where it is."""
        with self._deciding:
            if self._phase != "waiting" or self.controller is None:
                return
            self._tell(f"the workers did not start within {seconds:.0f} s (--cluster.hang-seconds)")
            controller = self.controller
        self._end_controller(controller)

    def fail_to_start(self, reason: str) -> None:
        """Note that a group failed before it could begin."""
        with self._deciding:
            if self._phase == "waiting":
                self.crash(f"the workers did not start: {reason}")

    def crash(self, reason: str) -> None:
        """End by something else than a rank, such as the death of Train's controller."""
        with self._deciding:
            self._failures.append(self._death(reason))
            self._tell(f"the attempt failed: {reason}")
            self._end()

    def leave(self, ending: Ending) -> None:
        """Note that the attempt is going to end by no fault of its own."""
        with self._deciding:
            self._ending = ending

    def close(self) -> None:
        """Follow nothing any more, whatever becomes of the group."""
        with self._deciding:
            self._phase = "closed"
            self._watch.end()

    def _end(self) -> None:
        """End the attempt, and decide whether there is to be a further one."""
        self.close()
        has_trained = self._began_at is not None and self.step > self._began_at
        self.verdict = self.verdict or self._history.end(self._ending, self._failures, has_trained=has_trained)

    def _death(self, reason: str, place: WorkerInfo | None = None) -> Failure:
        rank, node = (place.rank, place.host) if place else (-1, "unknown")
        return Failure(rank, self.step, self.step * self._batch_size, reason, is_death=True, node=node)
