""""""

import tiny
import torch.distributed as dist
from tiny import (
    CPU,
    NUM_STEPS,
    STAGE,
    steps_of,
    summary,
)

from captioning.checkpoint import CheckpointDescription, restore, save_checkpoint
from captioning.training import (
    replicate,
)


def trained(rank=0, world_size=1, *, is_double=False, num_parts=1, **options):
    """Train to the end; return what the steps did, and the weights."""
    state = tiny.training_state(is_double=is_double, trainable_from=STAGE)
    batches = tiny.batches(range(NUM_STEPS), rank=rank, world_size=world_size, num_parts=num_parts)
    results = list(steps_of(state, batches, replica=replicate(state.model, CPU), **options))
    return summary(results, state)


def resumed(folder, rank=0, world_size=1):
    """Train for half of the steps, then in another model for the rest, from a checkpoint."""
    first = tiny.training_state(trainable_from=STAGE)
    batches = tiny.batches(range(NUM_STEPS // 2), rank=rank, world_size=world_size)
    results = list(steps_of(first, batches, replica=replicate(first.model, CPU)))
    if rank == 0:
        description = CheckpointDescription(
            step=first.step, model=tiny.MODEL, vocabulary_digest=tiny.VOCABULARY.digest, max_caption_words=8
        )
        save_checkpoint(folder, first, tiny.VOCABULARY, description=description, config="")
    if dist.is_initialized():
        dist.barrier()
    second = tiny.training_state(seed=9, trainable_from=STAGE)
    replica = replicate(second.model, CPU)
    restore(second, folder, tiny.VOCABULARY)
    batches = tiny.batches(range(second.step, NUM_STEPS), rank=rank, world_size=world_size)
    results += steps_of(second, batches, replica=replica)
    return summary(results, second)
