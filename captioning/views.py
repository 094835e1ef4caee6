"""Images as a frozen encoder sees them: some views of each, whose features are kept, and one of them drawn in training.

Shapes: B images, K views, R regions, C channels, S pixels a side.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captioning.encoder import Encoder
from captioning.hashing import fold, uniform
from captioning.pixels import Augmentation, decode_image

_VIEW_SITE = 3


def view_image(jpeg: bytes, size_px: int, *, num_views: int, augmentation: Augmentation, number: int) -> Tensor:
    """Decode an image to its views: the centre, the centre mirrored if images are mirrored, then crops.

    Args:
        jpeg: as ``decode_image`` takes it.
        size_px: S.
        num_views: K.
        augmentation: of the crops.
        number: of the sample, which with seed and view decides about a crop.

    Returns:
        (K, 3, S, S) uint8; a view does not depend on how many there are.

    Raises:
        ValueError: it does not decode.
    """
    centre = decode_image(jpeg, size_px)
    views = [centre, centre.flip(-1)] if augmentation.flip else [centre]
    for view in range(len(views), num_views):
        seed = int(fold(augmentation.seed, view, _VIEW_SITE))
        views.append(decode_image(jpeg, size_px, augmentation=augmentation._replace(seed=seed), position=number))
    return torch.stack(views[:num_views])


def draw_views(positions: Sequence[int], *, seed: int, num_views: int) -> list[int]:
    """Draw the view of each position of the training stream, whoever reads it."""
    keys = fold(seed, torch.tensor(positions, dtype=torch.int64), _VIEW_SITE)
    return (uniform(keys) * num_views).long().tolist()


@torch.no_grad()
def encode_views(encoder: Encoder, views: Tensor, *, is_pooled: bool, use_bf16: bool) -> np.ndarray:
    """Compute the features of images.

    Args:
        encoder: on its device.
        views: (B, K, 3, S, S) uint8, on any device.
        is_pooled: keep the mean over the regions alone.
        use_bf16: compute in bfloat16 where it is safe.

    Returns:
        (B, K, R, C) float16; what it cannot hold is infinite.
    """
    device = encoder.mean.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16):
        features = encoder(views.flatten(0, 1).to(device)).float()
    if is_pooled:
        features = features.mean(1, keepdim=True)
    return features.half().unflatten(0, views.shape[:2]).cpu().numpy()
