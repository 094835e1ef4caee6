"""DDP: the wrapping of a model for data-parallel training."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from captioning.data.batches import blank_batch
from captioning.model.caption_model import CaptionModel
from captioning.training.collectives import world_size


def replicate(model: CaptionModel, device: torch.device) -> nn.Module:
    """Wrap the model for data-parallel training if there is a process group of several, and settle its buckets.

    DDP sums its first gradients in one layout and later ones in another. Two passes whose gradients are thrown away
    make the layout final, so that a resumed run adds in the same order as one that never stopped.
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
