"""Views of an image: a fixed set of crops for which a frozen encoder's features are stored; training draws one of them.

Shapes: K views, S pixels per side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from captioning.data.pixels import Augmentation, decode_image
from captioning.hashing import fold, uniform

_VIEW_SITE = 3


def decode_views(
    jpeg: bytes, size_px: int, *, num_views: int, augmentation: Augmentation, number: int, by_pillow: bool = False
) -> Tensor:
    """Decode the views of an image: the centre, the mirrored centre if the augmentation mirrors, then crops.

    Args:
        jpeg: content of an image file, as for ``decode_image``.
        size_px: S, the side of a view in pixels.
        num_views: K, the number of views.
        augmentation: distribution that the crops are drawn from, and whether views are mirrored.
        number: number of the sample within its split; seeds a crop, with the seed and the number of the view.
        by_pillow: as in ``decode_into``.

    Returns:
        (K, 3, S, S) uint8 pixels; the first views are the same for any K.

    Raises:
        ValueError: the image does not decode.
    """
    centre = decode_image(jpeg, size_px, by_pillow=by_pillow)
    views = [centre, centre.flip(-1)] if augmentation.flip else [centre]
    for view in range(len(views), num_views):
        seed = int(fold(augmentation.seed, view, _VIEW_SITE))
        seeded = augmentation._replace(seed=seed)
        views.append(decode_image(jpeg, size_px, augmentation=seeded, position=number, by_pillow=by_pillow))
    return torch.stack(views[:num_views])


def draw_views(positions: Sequence[int], *, seed: int, num_views: int) -> list[int]:
    """Return the number of a random view for each position in the training stream, by a hash of seed and position."""
    keys = fold(seed, torch.tensor(positions, dtype=torch.int64), _VIEW_SITE)
    return (uniform(keys) * num_views).long().tolist()
