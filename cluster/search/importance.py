"""Importance of each setting of a search, by Optuna's fANOVA (Hutter et al., 2014)."""

import math
import warnings
from collections.abc import Sequence
from typing import Literal

from cluster.search.space.sampling import study_of
from cluster.search.space.space import SearchSpace
from cluster.search.trials import Trial, observations

_LEAST_TRIALS = 4


def setting_importances(
    space: SearchSpace, trials: Sequence[Trial], mode: Literal["min", "max"]
) -> dict[str, float] | None:
    """Return the share of the differences between scores that each setting explains.

    Args:
        space: the search space.
        trials: trials of the search.
        mode: whether a lower (min) or a higher (max) score is better.

    Returns:
        The shares by key, which sum to 1; None if too few trials have ended with different scores.
    """
    ended = [one for one in observations(trials, mode) if one.score is not None and math.isfinite(one.score)]
    if len(ended) < _LEAST_TRIALS or len({one.score for one in ended}) < 2 or not space.searched:
        return None
    # Imported late, as in ``sampling``; the random forest behind it takes another second.
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    study = study_of(space, ended, seed=0, mode=mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own deprecations
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0, n_trees=32))
    # A setting with the same value in all trials explains nothing, and Optuna leaves it out.
    return {parameter.key: float(found.get(parameter.key, 0.0)) for parameter in space.searched}
