"""How long a run or a search takes, from one training step that is really done."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from captioning.training.loop import num_training_steps
from cluster.checks.rehearsal import StepTiming
from cluster.config import TrainRun
from cluster.search.space.asha import rungs_of
from cluster.search.space.config import SearchConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchEstimate:
    """What a search would take."""

    trials_at_once: int
    seconds_per_step: float
    """Of the base configuration."""
    host: str
    """Where the step was measured."""
    steps_per_trial: int
    """Of one that is not stopped."""
    num_epochs: int
    """That all trials take together, if the scheduler stops as many as it means to."""
    num_views: int
    """Of images, whose features are still to be extracted."""
    extraction_seconds: float
    """For the features, once; 0 if there is nothing to extract."""
    seconds: float
    """For all trials, without their validations."""


def estimate_search(
    search: SearchConfig,
    timing: StepTiming,
    *,
    run: TrainRun,
    splits: Mapping[str, int],
    num_trials: int,
    trials_at_once: int,
    extracts: bool,
) -> SearchEstimate:
    """Multiply a step by those of all trials.

    Args:
        search: says how long they are.
        timing: how long a step of their base takes.
        run: that base.
        splits: samples of each split.
        num_trials: of the search.
        trials_at_once: that the cluster has room for.
        extracts: whether the features that trials read are still to be made.
    """
    num_images = sum(splits[split] for split in {run.train_split, run.validation_split})
    num_views = search.views * num_images if extracts else 0
    training = replace(run.training, num_epochs=float(search.max_epochs))
    num_steps = num_training_steps(training, splits[run.train_split])
    num_epochs = expected_epochs(search, num_trials)
    num_slots = max(1, min(trials_at_once, num_trials))
    # No trial is faster than itself, however many run beside it.
    longest = max(num_epochs / num_slots, search.max_epochs)
    return SearchEstimate(
        trials_at_once=trials_at_once,
        seconds_per_step=timing.seconds_per_step,
        host=timing.host,
        steps_per_trial=num_steps,
        num_epochs=num_epochs,
        num_views=num_views,
        extraction_seconds=timing.seconds_per_image * num_views / max(1, trials_at_once),
        seconds=timing.seconds_per_step * num_steps / search.max_epochs * longest,
    )


def expected_epochs(search: SearchConfig, num_trials: int) -> int:
    """Return the epochs of all trials, if one in ``reduction_factor`` goes on wherever they are compared."""
    total, done, going_on = 0, 0, num_trials
    for until in rungs_of(search):
        total += going_on * (until - done)
        done, going_on = until, max(1, going_on // search.reduction_factor)
    return total
