"""Disturbing a run at the moments that were planned, while it goes on to its end."""

import logging
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

from cluster.runs.sample_ledger import read_sample_ledger
from tests.faults.scene import LOOK_EVERY_SECONDS, Event, Scene, Strike
from tests.faults.strikes import KINDS
from tests.support.training_process import TrainingRun

logger = logging.getLogger(__name__)

_STALLED_SECONDS = 240.0
_FAILED = 1
_NEEDS_NO_ATTEMPT = {"tracker", "bucket", "first-start", "second-owner"}  # training goes on without a new attempt


class Outcome(NamedTuple):
    """What a strike cost.

    Attributes:
        strike: that cost it.
        steps_redone: begun, thrown away, and computed again.
        recovery_seconds: without a step, until an attempt that began after it took one; None if training went on.
    """

    strike: Strike
    steps_redone: int
    recovery_seconds: float | None


@dataclass(frozen=True)
class Disturbance:
    """What befell a run, in order."""

    outcomes: list[Outcome]


def disturb(
    scene: Scene,
    events: list[Event],
    *,
    checkpoint_every: int,
) -> Disturbance:
    """Start a run, disturb it, and wait until it has ended well; a driver that was ended is started again.

    Args:
        scene: with a run that has not yet started.
        events: to come, in order.
        checkpoint_every: steps between checkpoints.

    Raises:
        AssertionError: the command failed, or makes no progress.
    """
    run = scene.run
    strikes: list[Strike] = []
    waiting = list(events)
    due: float | None = None
    run.start()
    while (code := run.code()) is None or waiting:
        if code == _FAILED and scene.was_cut_off_at > run.started_at:  # as its message says
            logger.info("the same command again, for it could not reach the bucket")
            run.start()
            continue
        assert code in (None, 0), f"the command ended with {code}:\n{run.log_tail()}"
        if code == 0:
            logger.warning("the run ended before %d of its events: %s", len(waiting), waiting)
            break
        scene.do_what_is_due()
        run.look()
        _assert_makes_progress(run, strikes)
        if waiting:
            due = _due(waiting[0], run, strikes, due)
            if (
                due is not None
                and time.time() >= due
                and (done := _strike(scene, waiting[0], strikes, checkpoint_every))
            ):
                strikes.append(done)
                waiting, due = waiting[1:], None
        time.sleep(LOOK_EVERY_SECONDS)
    assert run.code() == 0, f"the command ended with {run.code()}:\n{run.log_tail()}"
    scene.do_what_is_due(all_of_it=True)
    return Disturbance(_outcomes(run, strikes))


def _due(event: Event, run: TrainingRun, strikes: list[Strike], due: float | None) -> float | None:
    """Return when an event comes, once that is known."""
    if due is not None:
        return due
    if event.step is None:
        return (strikes[-1].at if strikes else time.time()) + event.delay
    latest = run.latest
    is_back = not strikes or _is_recovered(run, strikes[-1])
    return time.time() + event.delay if latest and is_back and latest.step >= event.step else None


def _is_recovered(run: TrainingRun, strike: Strike) -> bool:
    return strike.kind in _NEEDS_NO_ATTEMPT or run.standstill(strike.at, attempt=strike.attempt) is not None


def _strike(scene: Scene, event: Event, strikes: list[Strike], checkpoint_every: int) -> Strike | None:
    """Let an event come; None if it finds no victim yet."""
    run = scene.run
    latest = run.latest
    strike = Strike(
        kind=event.kind,
        at=time.time(),
        phase=_phase(run, strikes, checkpoint_every),
        step=latest.step if latest else 0,
        attempt=run.record.attempt,
    )
    note = KINDS[event.kind][2](scene, event.choice)
    if note is None:
        return None
    logger.info("%s at step %d, attempt %d (%s) %s", event.kind, strike.step, strike.attempt, strike.phase, note)
    return replace(strike, note=note)


def _phase(run: TrainingRun, strikes: list[Strike], checkpoint_every: int) -> str:
    latest = run.latest
    if strikes and not _is_recovered(run, strikes[-1]):
        return "while restarting"
    if latest is None:
        return "while starting"
    around = latest.step % checkpoint_every
    return "around a checkpoint" if around in (0, checkpoint_every - 1) else "while training"


def _assert_makes_progress(run: TrainingRun, strikes: list[Strike]) -> None:
    since = max([run.started_at, *(one.at for one in strikes[-1:]), *([run.latest.at] if run.latest else [])])
    silent = time.time() - since
    assert silent < _STALLED_SECONDS, f"no step for {silent:.0f} s, after {strikes[-1:]}:\n{run.log_tail()}"


def _outcomes(run: TrainingRun, strikes: list[Strike]) -> list[Outcome]:
    trained = read_sample_ledger(run.folder / "ledger")
    outcomes = []
    for number, strike in enumerate(strikes):
        is_first = all(one.attempt != strike.attempt or one.kind in _NEEDS_NO_ATTEMPT for one in strikes[:number])
        redone = trained.steps_redone.get(strike.attempt, 0) if is_first else 0
        if strike.kind in _NEEDS_NO_ATTEMPT:
            outcomes.append(Outcome(strike, 0, None))
            continue
        outcomes.append(Outcome(strike, redone, run.standstill(strike.at, attempt=strike.attempt)))
    return outcomes
