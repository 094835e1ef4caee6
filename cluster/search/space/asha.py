"""Which trials of a search go on: asynchronous successive halving, as a function of what the trials have reported.

Source: Li et al., 2018, A System for Massively Parallel Hyperparameter Tuning (https://arxiv.org/abs/1810.05934),
algorithm 2. Every trial trains to the first rung; whenever there is room, the best trial of the highest rung that has
one among its best 1/eta goes on to the next. (Ray Tune's scheduler of that name stops trials instead, and cannot take
back what it let pass before it knew better.) It keeps no state, so that a search goes on as if it had never stopped.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from cluster.search.space.config import SearchConfig
from cluster.search.trials import Trial


class Promotion(NamedTuple):
    """A trial that is to go on, and to which epoch."""

    number: int
    until: int


def rungs_of(config: SearchConfig) -> list[int]:
    """Return the epochs at which trials are compared, ascending; at the last, they are done."""
    if config.scheduler == "none":
        return [config.max_epochs]
    rungs, epoch = [], 1
    while epoch < config.max_epochs:
        rungs.append(epoch)
        epoch *= config.reduction_factor
    return [*rungs, config.max_epochs]


def next_promotion(trials: Sequence[Trial], config: SearchConfig) -> Promotion | None:
    """Return the trial to promote next; None if none has earned it yet."""
    rungs = rungs_of(config)
    sign = 1 if config.mode == "min" else -1
    for rung, until in reversed(list(pairwise(rungs))):
        scored = [(score, trial) for trial in trials if (score := _score_at(trial, rung)) is not None]
        scored.sort(key=lambda pair: (sign * pair[0], pair[1].number))
        for _, trial in scored[: len(scored) // config.reduction_factor]:
            if trial.until == rung and trial.state == "stopped":
                return Promotion(trial.number, until)
    return None


def _score_at(trial: Trial, rung: int) -> float | None:
    """Return the score of a trial when it reached a rung; None if it has not, or its score is no number."""
    score = next((report.score for report in trial.reports if report.epoch >= rung), None)
    return score if score == score else None
