"""How long a search takes, from one training step that is really done, here and now."""

from dataclasses import dataclass, replace

import torch

from captioning.training import num_training_steps, train
from cluster.config import TrainRun
from cluster.data import ShardSet, training_batches
from cluster.halving import rungs_of
from cluster.resuming import build_state
from cluster.runs import store_of
from cluster.search_config import SearchConfig

_NUM_STEPS = 2  # the first is slower than those to come


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchEstimate:
    """What a search would take."""

    trials_at_once: int
    seconds_per_step: float
    """Of the base configuration, on this machine."""
    steps_per_trial: int
    """Of one that is not stopped."""
    num_epochs: int
    """That all trials take together, if the scheduler stops as many as it means to."""
    seconds: float
    """For all trials, without their validations."""


def estimate_search(
    run: TrainRun, search: SearchConfig, shard_set: ShardSet, *, num_trials: int, trials_at_once: int
) -> SearchEstimate:
    """Measure a step and multiply.

    Args:
        run: base of all trials.
        search: says how long they are.
        shard_set: of the run.
        num_trials: of the search.
        trials_at_once: that the cluster has room for.
    """
    training = replace(run.training, num_epochs=float(search.max_epochs))
    num_steps = num_training_steps(training, shard_set.manifest.splits[run.train_split])
    seconds = measure_step(run, shard_set)
    num_epochs = expected_epochs(search, num_trials)
    num_slots = max(1, min(trials_at_once, num_trials))
    # No trial is faster than itself, however many run beside it.
    longest = max(num_epochs / num_slots, search.max_epochs)
    return SearchEstimate(
        trials_at_once=trials_at_once,
        seconds_per_step=seconds,
        steps_per_trial=num_steps,
        num_epochs=num_epochs,
        seconds=seconds * num_steps / search.max_epochs * longest,
    )


def measure_step(run: TrainRun, shard_set: ShardSet) -> float:
    """Return the seconds that a training step takes in this process, reading included."""
    device = torch.device("cuda" if run.cluster.use_gpu and torch.cuda.is_available() else "cpu")
    torch.set_num_threads(run.cluster.cpus_per_worker)
    state, replica = build_state(run, shard_set, None, store=store_of(run.folder, None), device=device)
    steps = range(_NUM_STEPS)
    batches = training_batches(
        shard_set, run.train_split, model=run.model, config=run.training, ranks=(0, 1), steps=steps
    )
    taken = [
        result.seconds
        for result in train(
            state,
            replica,
            batches,
            optimizer_config=run.optimizer,
            config=run.training,
            num_steps=_NUM_STEPS,
            device=device,
        )
    ]
    return taken[-1]


def expected_epochs(search: SearchConfig, num_trials: int) -> int:
    """Return the epochs of all trials, if one in ``reduction_factor`` goes on wherever they are compared."""
    total, done, going_on = 0, 0, num_trials
    for until in rungs_of(search):
        total += going_on * (until - done)
        done, going_on = until, max(1, going_on // search.reduction_factor)
    return total
