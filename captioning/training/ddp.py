"""DDP: a model wrapped for data-parallel training."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from captioning.data.batches import blank_batch
from captioning.model.caption_model import CaptionModel
from captioning.training.collectives import world_size


def replicate(model: CaptionModel, device: torch.device) -> nn.Module:
    """Wrap the model in DDP if the group has several processes, with its final bucket layout.

    DDP sums its first gradients in one bucket layout and later ones in another. Two backward passes with discarded
    gradients make the layout final, so that a resumed run sums in the same order as one that never stopped.
    """
    if world_size() == 1:
        return model
    replica = DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )
    batch = blank_batch(model.encoder.image_size_px, device=device)
    for _ in range(2):
        replica(batch).sum().backward()
    model.zero_grad(set_to_none=True)
    return replica
