"""The kinds of misfortune that befall a run, each a function, and when each of them strikes."""

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psutil

from tests.support.local_cluster import LocalCluster, strike
from tests.support.tracker_process import Tracker
from tests.support.training_process import TrainingRun, interrupt, tracked_runs

NOTICE_SECONDS = 30
_FOLLOW_SHARE = 0.2


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
    """What misfortune can befall: a run with its cluster and tracker.

    Attributes:
        cluster: that it trains on.
        run: to disturb.
        tracker: of the run.
        later: what is due at a time, such as a node that comes back.
    """

    cluster: LocalCluster
    run: TrainingRun
    tracker: Tracker | None
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


def _kill(kind: str) -> Callable[[Scene, float], str | None]:
    def act(scene: Scene, choice: float) -> str | None:
        found = scene.cluster.processes(kind)
        if not found:
            return None
        strike(_chosen(found, choice))
        return ""

    return act


def _kill_node(scene: Scene, choice: float) -> str | None:
    nodes = _nodes_with_workers(scene)
    if not nodes:
        return None
    scene.cluster.kill_node(_chosen(nodes, choice))
    scene.after(choice, scene.cluster.add_node)
    return ""


def _drain_node(scene: Scene, choice: float) -> str | None:
    nodes = _nodes_with_workers(scene)
    if not nodes:
        return None
    node = _chosen(nodes, choice)
    scene.cluster.drain_node(node, seconds=NOTICE_SECONDS)
    scene.after(choice, scene.cluster.add_node)
    scene.after(NOTICE_SECONDS, lambda: scene.cluster.kill_node(node) if node in scene.cluster.nodes else None)
    return ""


def _kill_driver(scene: Scene, choice: float) -> str | None:
    if scene.run.code() is not None:
        return None
    scene.run.strike_driver(signal.SIGKILL)
    scene.run.start()
    return ""


def _interrupt_driver(scene: Scene, choice: float) -> str | None:
    if scene.run.code() is not None:
        return None
    is_training = bool(scene.cluster.processes("worker"))
    seconds, is_saved = interrupt(scene.run)
    marked = _status(scene)
    scene.run.start()
    saved = "a checkpoint" if is_saved else "no checkpoint"
    return f"ended in {seconds:.1f} s with {saved}, marked {marked}" + ("" if is_training else ", no worker was there")


def _status(scene: Scene) -> str:
    try:
        _, found = tracked_runs(scene.run, scene.tracker.uri if scene.tracker else None)
    except ConnectionError:
        return "nothing, for the tracker was down"
    return " and ".join(run.info.status for run in found)


def _stop_worker(scene: Scene, choice: float) -> str | None:
    found = [one for one in scene.cluster.processes("worker") if one.status() != psutil.STATUS_STOPPED]
    if not found:
        return None
    strike(_chosen(found, choice), signal.SIGSTOP)
    return ""


def _stop_tracker(scene: Scene, choice: float) -> str | None:
    if scene.tracker is None or not scene.tracker.is_up():
        return None
    scene.tracker.stop()
    scene.after(5 + 15 * choice, scene.tracker.start)
    return ""


KINDS: dict[str, tuple[str, int, Callable[[Scene, float], str | None]]] = {
    "worker": ("training worker, SIGKILL", 4, _kill("worker")),
    "loader": ("loader process, SIGKILL", 3, _kill("loader")),
    "node": ("whole node, SIGKILL", 4, _kill_node),
    "controller": ("Train's controller, SIGKILL", 3, _kill("controller")),
    "coordinator": ("coordinator, SIGKILL", 3, _kill("coordinator")),
    "driver": ("driver, SIGKILL", 4, _kill_driver),
    "interrupt": ("driver, SIGTERM", 3, _interrupt_driver),
    "stop": ("training worker, SIGSTOP", 2, _stop_worker),
    "drain": ("node, taken away with notice", 2, _drain_node),
    "tracker": ("tracker, down for 5-20 s", 2, _stop_tracker),
}
"""By name: what people read, how often among the others, and what it does: a note, or None if there is no victim."""


def plan_events(*, kinds: Sequence[str], num_events: int, num_steps: int, seed: int) -> list[Event]:
    """Draw when what happens to a run of so many steps.

    Args:
        kinds: that happen; a short list comes in full before one comes again.
        num_events: in all.
        num_steps: of the run; the first and last tenths are left alone, lest the run ends before the last event.
        seed: of the drawing.
    """
    draw = random.Random(seed)
    drawn = [kind for _, kind in zip(range(num_events), _deck(kinds, draw), strict=False)]
    follows = [number > 0 and draw.random() < _FOLLOW_SHARE for number in range(num_events)]
    reach = range(max(3, num_steps // 20), max(4, num_steps - max(12, num_steps // 20)))
    steps = sorted(draw.choices(reach, k=num_events))
    return [
        Event(kind, None, draw.uniform(2, 12), draw.random())
        if is_second
        else Event(kind, step, draw.random(), draw.random())
        for kind, is_second, step in zip(drawn, follows, steps, strict=True)
    ]


def _deck(kinds: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Yield each kind once, then each as often as its weight says, over and over, shuffled."""
    deck = list(kinds)
    while True:
        draw.shuffle(deck)
        yield from deck
        deck = [kind for kind in kinds for _ in range(KINDS[kind][1])]


def _chosen(found: Sequence[Any], choice: float) -> Any:
    return found[int(choice * len(found))]


def _nodes_with_workers(scene: Scene) -> list[Any]:
    found = []
    for worker in scene.cluster.processes("worker"):
        with suppress(psutil.NoSuchProcess, StopIteration):  # it has just ended
            found.append(scene.cluster.node_of(worker))
    return found
