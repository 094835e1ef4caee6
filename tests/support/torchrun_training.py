"""One rank of a training under ``torchrun``: the loop of this project, without its cluster, record and tracker."""

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from captioning.config import ModelConfig, TrainingConfig
from cluster.config import TrainRun
from cluster.data.shard_set import ShardSet
from tests.support.run_steps import steps_of_run


def main(shards: Path, backbone: str, size_px: int, batch_size: int, num_steps: int) -> None:
    """Train, and print when each step ended and the share of its time that is waited for data.

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
    rank, world_size = dist.get_rank(), dist.get_world_size()
    _, results = steps_of_run(run, ShardSet(shards), num_steps, ranks=(rank, world_size))
    for result in results:
        if rank == 0:
            sys.stdout.write(f"step {time.time()} {result.data_wait_seconds / result.seconds}\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
