"""Asynchronous successive halving (ASHA): which trial is promoted to its next rung.

Source: Li et al., 2018, A System for Massively Parallel Hyperparameter Tuning (https://arxiv.org/abs/1810.05934),
algorithm 2. A rung is an epoch at which trials are compared. Every trial trains to the first rung and stops there.
Whenever a worker is free, ASHA promotes the best stopped trial among the best 1/eta of a rung: the trial resumes, and
trains to the next rung. Higher rungs come first. Eta is the reduction factor.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from cluster.search.space.config import SearchConfig
from cluster.search.trials import Trial


class NextRung(NamedTuple):
    """A trial to promote.

    Attributes:
        number: number of the trial.
        until: epoch of the rung to which it trains.
    """

    number: int
    until: int


def rung_epochs(config: SearchConfig) -> list[int]:
    """Return the epochs of the rungs, ascending; the last one is the end of a trial."""
    if config.scheduler == "none":
        return [config.max_epochs]
    rungs, epoch = [], 1
    while epoch < config.max_epochs:
        rungs.append(epoch)
        epoch *= config.reduction_factor
    return [*rungs, config.max_epochs]


def next_rung(trials: Sequence[Trial], config: SearchConfig) -> NextRung | None:
    """Return the trial to promote next, and its next rung; None if no trial can be promoted yet."""
    sign = 1 if config.mode == "min" else -1
    for rung, until in reversed(list(pairwise(rung_epochs(config)))):
        scored = [(score, trial) for trial in trials if (score := _score_at(trial, rung)) is not None]
        scored.sort(key=lambda pair: (sign * pair[0], pair[1].number))
        for _, trial in scored[: len(scored) // config.reduction_factor]:
            if trial.until == rung and trial.state == "stopped":
                return NextRung(trial.number, until)
    return None


def _score_at(trial: Trial, rung: int) -> float | None:
    """Return a trial's score at a rung; None if it has not reached the rung, or if the score is nan."""
    score = next((report.score for report in trial.reports if report.epoch >= rung), None)
    return score if score == score else None  # nan differs from itself
