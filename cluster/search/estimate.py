"""Estimate of a search's duration, from the measured time of one training step."""

from collections.abc import Mapping
from dataclasses import dataclass

from captioning.training.loop import num_training_steps
from cluster.checks.rehearsal import StepTiming
from cluster.config import TrainRun
from cluster.search.space.asha import rung_epochs
from cluster.search.space.config import SearchConfig, trial_training


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchEstimate:
    """The expected work and duration of a search."""

    trials_at_once: int
    """Number of trials that the cluster can train at the same time."""
    seconds_per_step: float
    """Time of one step with the base configuration."""
    host: str
    """Node on which the step was measured."""
    steps_per_trial: int
    """Number of steps of a trial that trains all its epochs."""
    num_epochs: int
    """Number of epochs of all trials together, if ASHA promotes one trial in ``reduction_factor`` at each rung."""
    num_views: int
    """Number of image views with features still to extract."""
    extraction_seconds: float
    """Time to extract the features, once for all trials, in seconds; 0 if there is nothing to extract."""
    seconds: float
    """Time to train all trials, without their validations, in seconds."""


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
    """Estimate the duration of a search from the number of its training steps.

    Args:
        search: the search's settings.
        timing: measured time of a step and of an image's features, with the base configuration.
        run: the base configuration of all trials.
        splits: number of samples of each split, by name.
        num_trials: number of trials of the search.
        trials_at_once: number of trials that the cluster can train at the same time.
        extracts: whether the search still has to extract the features that its trials read.
    """
    num_images = sum(splits[split] for split in {run.train_split, run.validation_split})
    num_views = search.views * num_images if extracts else 0
    num_steps = num_training_steps(trial_training(run.training, search.max_epochs), splits[run.train_split])
    num_epochs = expected_epochs(search, num_trials)
    num_slots = max(1, min(trials_at_once, num_trials))
    # A search takes at least as long as one full trial: its epochs cannot run in parallel.
    num_epochs_in_a_row = max(num_epochs / num_slots, search.max_epochs)
    return SearchEstimate(
        trials_at_once=trials_at_once,
        seconds_per_step=timing.seconds_per_step,
        host=timing.host,
        steps_per_trial=num_steps,
        num_epochs=num_epochs,
        num_views=num_views,
        extraction_seconds=timing.seconds_per_image * num_views / max(1, trials_at_once),
        seconds=timing.seconds_per_step * num_steps / search.max_epochs * num_epochs_in_a_row,
    )


def expected_epochs(search: SearchConfig, num_trials: int) -> int:
    """Return the epochs of all trials together, if each rung promotes one in ``reduction_factor``, at least one."""
    total, done, num_promoted = 0, 0, num_trials
    for until in rung_epochs(search):
        total += num_promoted * (until - done)
        done, num_promoted = until, max(1, num_promoted // search.reduction_factor)
    return total
