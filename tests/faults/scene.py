"""What misfortune can befall, and what is known of a misfortune before and after it has come."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.local_cluster import LocalCluster
from tests.support.s3 import Bucket
from tests.support.tracker_process import Tracker
from tests.support.training_process import TrainingRun

LOOK_EVERY_SECONDS = 0.1


class Event(NamedTuple):
    """A misfortune to come.

    Attributes:
        kind: one of ``KINDS``.
        step: that the run has reached when it comes; None: it follows the one before, whatever the run does.
        delay: seconds after that.
        choice: in [0, 1): which of several victims.
    """

    kind: str
    step: int | None
    delay: float
    choice: float


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A misfortune that has come.

    Attributes:
        kind: one of ``KINDS``.
        at: when, seconds since 1970.
        phase: of the run.
        step: latest step that was done.
        attempt: that was the current one.
        note: what else is known of it.
    """

    kind: str
    at: float
    phase: str
    step: int
    attempt: int
    note: str = ""


@dataclass
class Scene:
    """What misfortune can befall: a run with its cluster, tracker and bucket.

    Attributes:
        cluster: that it trains on.
        run: to disturb.
        tracker: of the run.
        bucket: of its checkpoints.
        was_cut_off_at: when the bucket was, the last time, seconds since 1970.
        later: what is due at a time, such as a node that comes back.
    """

    cluster: LocalCluster
    run: TrainingRun
    tracker: Tracker | None = None
    bucket: Bucket | None = None
    was_cut_off_at: float = 0.0
    later: list[tuple[float, Callable[[], Any]]] = field(default_factory=list)

    def do_what_is_due(self, *, all_of_it: bool = False) -> None:
        """Do what is due by now."""
        due = [one for one in self.later if all_of_it or one[0] <= time.time()]
        self.later = [one for one in self.later if one not in due]
        for _, act in due:
            act()

    def after(self, seconds: float, act: Callable[[], Any]) -> None:
        """Do something later."""
        self.later.append((time.time() + seconds, act))

    @property
    def is_reachable(self) -> bool:
        """Return whether the tracker and the bucket answer."""
        return (self.tracker is None or self.tracker.is_up()) and (self.bucket is None or self.bucket.is_up)

    def wait_until(self, condition: Callable[[], Any], seconds: float) -> None:
        """Wait for something, and go on to look at the run.

        Raises:
            AssertionError: it did not come in time.
        """
        deadline = time.time() + seconds
        while not condition():
            assert time.time() < deadline, f"not within {seconds:g} s"
            self.do_what_is_due()
            self.run.look()
            time.sleep(LOOK_EVERY_SECONDS)
