"""One rank of a training under ``torchrun``: the loop of this project, without its cluster, record and tracker."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from captioning.config import ModelConfig, TrainingConfig
from captioning.training.loop import train
from cluster.config import TrainRun
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.worker.resume import build_state


def main(shards: Path, backbone: str, size_px: int, batch_size: int, num_steps: int) -> None:
    """Train, and print the number of each step and the share of its time that is waited for data.

    Args:
        shards: folder of the shard set.
        backbone: torchvision model, frozen, with random weights.
        size_px: side of an image, in pixels.
        batch_size: number of images of a step, of all ranks.
        num_steps: number of steps.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    run = TrainRun(
        shards=shards,
        model=ModelConfig(backbone=backbone, weights="none", image_size_px=size_px),
        training=TrainingConfig(batch_size=batch_size),
    )
    shard_set, device = ShardSet(shards), torch.device("cpu")
    state, replica = build_state(run, shard_set, None, device=device)
    batches = training_batches(
        shard_set,
        run.train_split,
        model=run.model,
        config=run.training,
        ranks=(dist.get_rank(), dist.get_world_size()),
        steps=range(num_steps),
    )
    results = train(
        state,
        replica,
        batches,
        optimizer_config=run.optimizer,
        config=run.training,
        num_steps=num_steps,
        device=device,
    )
    for result in results:
        if dist.get_rank() == 0:
            sys.stdout.write(f"step {result.step} {result.data_wait_seconds / result.seconds}\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
