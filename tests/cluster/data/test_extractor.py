"""Features are the encoder's output for each view."""

import numpy as np
import pytest
import torch

from captioning.data.pixels import Augmentation
from captioning.data.views import decode_views
from captioning.model.encoder import Encoder
from cluster.data.extractor import encode_views
from tests.support.tiny_models import MODEL, jpeg

AUGMENTATION = Augmentation(seed=2, crop_area=0.3, flip=True)


JPEG = jpeg(0, width=160, height=120)


def views(num_views, *, number=5, flip=True, seed=2):
    augmentation = AUGMENTATION._replace(flip=flip, seed=seed)
    return decode_views(JPEG, 64, num_views=num_views, augmentation=augmentation, number=number)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(MODEL)


def test_features_are_those_of_the_encoder_view_by_view(encoder):
    images = torch.stack([views(3), views(3, number=8)])
    found = encode_views(encoder, images, is_pooled=False, use_bf16=False)
    with torch.no_grad():
        wanted = torch.stack([encoder(of_image) for of_image in images])
    assert (found.dtype, found.shape) == (np.float16, wanted.shape)
    assert np.allclose(found, wanted.half().numpy(), atol=1e-3)


def test_pooled_features_are_the_mean_over_regions(encoder):
    grid, pooled = (encode_views(encoder, views(2)[None], is_pooled=one, use_bf16=False) for one in (False, True))
    assert pooled.shape == (1, 2, 1, grid.shape[-1])
    assert np.allclose(pooled[:, :, 0], grid.astype(np.float32).mean(2), rtol=2e-3)


def test_bf16_changes_features_a_little(encoder):
    exact, coarse = (encode_views(encoder, views(2)[None], is_pooled=True, use_bf16=one) for one in (False, True))
    assert 0 < np.abs(exact - coarse).max() < 0.1 * np.abs(exact).max()
