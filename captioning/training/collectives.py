"""Collectives: the one all-reduce of a step, by which all processes act alike, and a slow gather for rare events."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

# Losses are sent as fixed-point numbers in the same integer all-reduce as the counts: an integer sum does not depend
# on the order of addition. Larger losses could overflow int64 in the sum over processes, so they count as infinite.
_FIXED_POINT, _LARGEST_LOSS_NATS = 2**28, 2.0**34

_Item = TypeVar("_Item")


class Flags(NamedTuple):
    """Requests of a process to all processes; a request of any process is enough.

    Attributes:
        checkpoint: request to write a checkpoint after this step.
        stop: request to take no further step.
        check_preemption: request to check for the preemption of a node, a check that all processes must do together.
    """

    checkpoint: bool = False
    stop: bool = False
    check_preemption: bool = False


class StepShare(NamedTuple):
    """Contribution of one process to a step.

    Attributes:
        loss_nats: loss summed over the words of the process, in nats; a tensor stays on its device.
        num_words: number of targets, <eos> included.
        num_images: number of images that the model computed.
        num_bad: number of samples that were left out.
        data_wait_seconds: time that the process waited for its data, in seconds.
        flags: requests of the process.
        gradient_norm: global norm of the gradient, () tensor; the same on all processes, and not summed.
        reward: sum over images of the mean reward of their sampled captions.
    """

    loss_nats: Tensor | float
    num_words: int
    num_images: int
    num_bad: int = 0
    data_wait_seconds: float = 0.0
    flags: Flags = Flags()
    gradient_norm: Tensor | float = math.nan
    reward: float = 0.0


class StepTotals(NamedTuple):
    """Sums of a step over all processes.

    Attributes:
        loss_nats: mean loss over all words, in nats; nan without words, or if a process's sum is too large or not a
            number.
        num_words: number of targets, <eos> included.
        num_images: number of images that the model computed.
        num_bad: number of samples that were left out.
        data_wait_seconds: time that a process waited for its data, in seconds, mean over processes.
        flags: requests of any process.
        gradient_norm: norm of this process's share; nan if it has none.
        reward: mean reward over images; nan without images.
    """

    loss_nats: float
    num_words: int
    num_images: int
    num_bad: int
    data_wait_seconds: float
    flags: Flags
    gradient_norm: float = math.nan
    reward: float = math.nan


def reduce_step(share: StepShare, device: torch.device) -> StepTotals:
    """Sum the shares of all processes, in one small all-reduce of integers.

    The host waits for the device once, when it reads the sums.
    """
    loss = torch.as_tensor(share.loss_nats, dtype=torch.float64, device=device)
    is_addable = loss.abs() * world_size() < _LARGEST_LOSS_NATS  # also false for nan
    fixed = torch.where(is_addable, (loss * _FIXED_POINT).round(), 0).long()
    waited, rewarded = round(share.data_wait_seconds * 1e6), round(share.reward * _FIXED_POINT)
    counts = torch.tensor([share.num_words, share.num_images, share.num_bad, waited, rewarded, *share.flags])
    message = torch.cat([torch.stack([fixed, (~is_addable).long()]), counts.to(device, non_blocking=True)])
    if dist.is_initialized():
        dist.all_reduce(message)
    norm = torch.as_tensor(share.gradient_norm, dtype=torch.float64, device=device)
    read = torch.cat([message, norm.view(1).view(torch.int64)]).cpu()
    fixed, num_infinite, num_words, num_images, num_bad, waited, rewarded, *flags = read[:-1].tolist()
    mean = math.nan if num_infinite or not num_words else fixed / _FIXED_POINT / num_words
    seconds = waited / 1e6 / world_size()
    norm = read[-1:].view(torch.float64).item()
    reward = rewarded / _FIXED_POINT / num_images if num_images else math.nan
    return StepTotals(mean, num_words, num_images, num_bad, seconds, Flags(*map(bool, flags)), norm, reward)


def can_be_added(loss_nats: float) -> bool:
    """Return whether a loss is a number, and small enough to be summed over all processes."""
    return abs(loss_nats) * world_size() < _LARGEST_LOSS_NATS  # also false for nan


def gather(mine: Sequence[_Item]) -> list[_Item]:
    """Return the items of all processes, in rank order. Slow, because it pickles: only for rare events."""
    if not dist.is_initialized():
        return list(mine)
    shares: list[list[_Item]] = [[] for _ in range(world_size())]
    dist.all_gather_object(shares, list(mine))
    return [item for share in shares for item in share]


def world_size() -> int:
    """Return the number of processes in the group; 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1
