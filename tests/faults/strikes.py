"""The kinds of misfortune that befall a run, each a function, and when each of them strikes."""

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import psutil

from tests.faults.rivals import kill_first_start, start_second_owner
from tests.faults.scene import Event, Scene
from tests.support.local_cluster import strike
from tests.support.training_process import interrupt, tracked_runs

NOTICE_SECONDS = 30
_FOLLOW_SHARE = 0.2
_LONGEST_DELAY_SECONDS = 0.25  # after a step: a few more are done by then


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


def _cut_bucket_off(scene: Scene, choice: float) -> str | None:
    if scene.bucket is None or not scene.bucket.is_up:
        return None
    silently = choice < 0.5
    scene.was_cut_off_at = time.time()
    scene.bucket.cut_off(silently=silently)
    scene.after(5 + 15 * choice, scene.bucket.start)
    return f"{'silent' if silently else 'connections refused'} for {5 + 15 * choice:.0f} s"


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
    "bucket": ("bucket of the checkpoints, cut off for 5-20 s", 2, _cut_bucket_off),
    "first-start": ("first start in another home, SIGKILL", 1, kill_first_start),
    "second-owner": ("second owner of the checkpoints, refused", 1, start_second_owner),
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
        else Event(kind, step, _LONGEST_DELAY_SECONDS * draw.random(), draw.random())
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
