"""Training steps of a run in one process, as a rank takes them: no cluster, record or tracker."""

from collections.abc import Iterator

import torch

from captioning.training.loop import StepResult, TrainingState, train
from cluster.config import TrainRun
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.worker.resume import build_state


def steps_of_run(
    run: TrainRun, shard_set: ShardSet, num_steps: int, *, ranks: tuple[int, int] = (0, 1)
) -> tuple[TrainingState, Iterator[StepResult]]:
    """Return a new state of a run, and its training steps on the CPU, which are taken as they are read.

    Args:
        run: settings of the run.
        shard_set: shard set to train on.
        num_steps: number of steps.
        ranks: this process's rank and the number of ranks.
    """
    state, replica = build_state(run, shard_set, None, device=torch.device("cpu"))
    batches = training_batches(
        shard_set, run.train_split, model=run.model, config=run.training, ranks=ranks, steps=range(num_steps)
    )
    results = train(
        state,
        replica,
        batches,
        optimizer_config=run.optimizer,
        config=run.training,
        num_steps=num_steps,
        device=torch.device("cpu"),
    )
    return state, results
