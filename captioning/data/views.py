"""Images as a frozen encoder sees them: some views of each, whose features are kept, and one of them drawn in training.

Shapes: B images, K views, R regions, C channels, S pixels a side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from captioning.data.pixels import Augmentation, decode_image
from captioning.hashing import fold, uniform

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
