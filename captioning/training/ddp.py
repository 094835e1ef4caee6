"""DDP: a model wrapped for data-parallel training."""

from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from captioning.config import NEWEST_ARITHMETIC
from captioning.data.batches import blank_batch
from captioning.model.caption_model import CaptionModel
from captioning.model.packing import Packing
from captioning.training.collectives import world_size


def replicate(model: CaptionModel, device: torch.device, *, arithmetic: int = NEWEST_ARITHMETIC) -> nn.Module:
    """Wrap the model in DDP if the group has several processes, with its final bucket layout.

    DDP sums its first gradients in one bucket layout and later ones in another. Two backward passes with discarded
    gradients make the layout final, so that a resumed run sums in the same order as one that never stopped.

    Args:
        model: the bare model; its parameters and buffers become those of rank 0.
        device: device of the model.
        arithmetic: version of the order of computation, as for ``train``.
    """
    if world_size() == 1:
        return model
    for buffer in model.buffers():  # before torch 2.14, DDP itself sends buffers at every step or not even once
        dist.broadcast(buffer, src=0)
    is_renamed = "forward_sync_buffers" in signature(DistributedDataParallel).parameters  # in torch 2.14
    options: dict[str, Any] = {"forward_sync_buffers" if is_renamed else "broadcast_buffers": False}
    replica = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, **options)
    batch = blank_batch(model.encoder.image_size_px, device=device)
    packing = Packing.of(batch.tokens).to(device) if arithmetic > 1 else None
    for _ in range(2):
        replica(batch, None, packing).sum().backward()
    model.zero_grad(set_to_none=True)
    return replica
