"""Samplers: choose the point of a search space for a trial.

Random and grid are implemented here, because a search must resume exactly from the record of its trials: a point
depends only on the search's seed and the trial's number, not on the state of a generator. Each point of a finite space
is drawn only once, whereas the random samplers of Optuna and Tune repeat points. TPE is Optuna's; each call builds a
new study from the observed trials, so it keeps no state either.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cluster.search.space.distributions import Parameter
from cluster.search.space.space import SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Sampler = Literal["random", "grid", "tpe"]


class Observation(NamedTuple):
    """A trial, as a sampler observes it.

    Attributes:
        number: number of the trial.
        point: value of each searched key.
        score: best score of a trial that has ended; None while the trial runs, and if it has no score.
    """

    number: int
    point: Mapping[str, Any]
    score: float | None


def check_sampler(space: SearchSpace, sampler: Sampler, num_trials: int) -> None:
    """Check that a sampler can draw from a space; a grid may have fewer points than there are trials.

    Raises:
        ValueError: there are no trials, or the sampler is a grid and the space has a range without steps.
    """
    if num_trials < 1:
        raise ValueError(f"a search needs at least 1 trial, not {num_trials}; use 1 or more")
    endless = [f"{parameter.key} {parameter}" for parameter in space.parameters if parameter.values is None]
    if sampler == "grid" and endless:
        raise ValueError(
            f"a grid has no steps for {', '.join(endless)}; write choice([A, B]), or use --sampler random or tpe"
        )


def suggest(
    space: SearchSpace,
    number: int,
    observations: Sequence[Observation],
    *,
    sampler: Sampler,
    seed: int,
    mode: Literal["min", "max"],
) -> dict[str, Any] | None:
    """Return the point of a trial; the same arguments give the same point.

    Args:
        space: search space that has passed ``check_sampler``.
        number: number of the trial, from 0.
        observations: all other trials, in any order; only tpe reads them.
        sampler: random, which draws each value independently; grid, which takes all points in order, the last
            parameter fastest; or tpe, which draws near the better observations, and away from those without a score.
        seed: seed of the search.
        mode: whether the lowest (min) or the highest (max) score is the best.

    Returns:
        Value of each key, in the space's order, of types that JSON preserves; None if grid or random has no point left.
    """
    if sampler == "grid":
        return _grid_point(space, number)
    if sampler == "random":
        return _random_point(space, number, seed)
    return _tpe_point(space, number, observations, seed=seed, mode=mode)


def _grid_point(space: SearchSpace, number: int) -> dict[str, Any] | None:
    point = {}
    for parameter in reversed(space.parameters):
        values = parameter.values
        if values is None:
            raise ValueError(f"a grid has no steps for {parameter.key} {parameter}; use another sampler")
        number, index = divmod(number, len(values))
        point[parameter.key] = values[index]
    return None if number else dict(reversed(point.items()))


def _random_point(space: SearchSpace, number: int, seed: int) -> dict[str, Any] | None:
    """Return the point with this number in the sequence of random points; in a finite space, repeats are skipped."""
    if space.num_points is None:
        return _drawn_point(space, seed, number)
    if number >= space.num_points:
        return None
    seen: set[tuple[Any, ...]] = set()
    for draw in itertools.count():
        point = _drawn_point(space, seed, draw)
        seen.add(tuple(point.values()))
        if len(seen) > number:
            return point
    return None


def _drawn_point(space: SearchSpace, seed: int, draw: int) -> dict[str, Any]:
    return {parameter.key: _drawn(parameter, seed, draw) for parameter in space.parameters}


def _drawn(parameter: Parameter, seed: int, number: int) -> Any:  # noqa: ANN401  any value
    bits = _hash(seed, number, parameter.key)
    if parameter.values is not None and parameter.kind != "logint":
        return parameter.values[bits * len(parameter.values) >> 64]
    low, high = parameter.arguments
    share = (bits >> 11) / 2**53  # in [0, 1): a float64 holds 53 bits exactly
    if parameter.kind == "uniform":
        return min(low + share * (high - low), high)
    # For logint, each whole number owns the interval from half a unit below it to half a unit above.
    half = 0.5 if parameter.kind == "logint" else 0.0
    start, end = math.log(low - half), math.log(high + half)
    value = math.exp(start + share * (end - start))
    return min(max(round(value) if half else value, low), high)


def _tpe_point(
    space: SearchSpace, number: int, observations: Sequence[Observation], *, seed: int, mode: Literal["min", "max"]
) -> dict[str, Any]:
    study = study_of(space, observations, seed=_hash(seed, number, "") >> 32, mode=mode)
    drawn = study.ask(_distributions(space)).params
    return {parameter.key: drawn.get(parameter.key, parameter.arguments[0]) for parameter in space.parameters}


def study_of(
    space: SearchSpace, observations: Sequence[Observation], *, seed: int, mode: Literal["min", "max"]
) -> "Study":
    """Return an Optuna study of trials, in memory.

    Args:
        space: the search space.
        observations: trials of the search.
        seed: seed of the study's TPE sampler.
        mode: whether a lower (min) or a higher (max) score is better.
    """
    # Imported late: it takes 0.2 s, which --help and the other samplers need not pay.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize" if mode == "min" else "maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    )
    for trial in sorted(observations, key=lambda trial: trial.number):
        study.add_trial(_frozen(trial, _distributions(space)))
    return study


def _distributions(space: SearchSpace) -> "dict[str, BaseDistribution]":
    return {parameter.key: _distribution(parameter) for parameter in space.searched}


def _distribution(parameter: Parameter) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choice":
        return CategoricalDistribution(parameter.arguments)
    low, high = parameter.arguments
    kind = IntDistribution if parameter.kind in ("int", "logint") else FloatDistribution
    return kind(low, high, log=parameter.is_log)


def _frozen(trial: Observation, distributions: Mapping[str, "BaseDistribution"]) -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    has_score = trial.score is not None and math.isfinite(trial.score)
    return create_trial(
        # A running trial keeps TPE away from its point (``constant_liar``), and so should a failed one.
        state=TrialState.COMPLETE if has_score else TrialState.RUNNING,
        value=trial.score if has_score else None,
        params={key: trial.point[key] for key in distributions},
        distributions=dict(distributions),
    )


def _hash(seed: int, number: int, key: str) -> int:
    """Return 64 pseudo-random bits that depend only on the arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}/{key}".encode()).digest()[:8], "big")
