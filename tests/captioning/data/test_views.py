"""Views of an image: their pixels, and the draw of one for training."""

import math
from collections import Counter

import pytest
import torch

from captioning.data.pixels import Augmentation, decode_image
from captioning.data.views import decode_views, draw_views
from tests.support.tiny_models import jpeg

AUGMENTATION = Augmentation(seed=2, crop_area=0.3, flip=True)
JPEG = jpeg(0, width=160, height=120)


def views(num_views, *, number=5, flip=True, seed=2):
    augmentation = AUGMENTATION._replace(flip=flip, seed=seed)
    return decode_views(JPEG, 64, num_views=num_views, augmentation=augmentation, number=number)


def test_the_first_view_is_the_centre_as_validation_decodes_it():
    assert torch.equal(views(1)[0], decode_image(JPEG, 64))


@pytest.mark.parametrize("flip", [True, False])
def test_the_second_view_is_the_centre_mirrored_if_images_are_mirrored(flip):
    centre, second = views(2, flip=flip)
    assert torch.equal(second, centre.flip(-1)) == flip


def test_further_views_are_different_crops():
    assert len({view.numpy().tobytes() for view in views(6)}) == 6


@pytest.mark.parametrize("changes", [{"number": 6}, {"seed": 3}])
def test_a_crop_depends_on_sample_and_seed(changes):
    assert not torch.equal(views(3)[2], views(3, **changes)[2])


def test_a_view_does_not_depend_on_how_many_there_are():
    assert torch.equal(views(6)[:4], views(4))


def test_an_image_that_does_not_decode_is_named():
    with pytest.raises(ValueError, match="the image does not decode"):
        decode_views(b"??", 64, num_views=2, augmentation=AUGMENTATION, number=0)


def test_views_are_drawn_by_position_alone():
    positions = list(range(40))
    assert draw_views(positions, seed=1, num_views=4)[10:] == draw_views(positions[10:], seed=1, num_views=4)


def test_every_view_is_drawn_as_often_as_any_other():
    counts = Counter(draw_views(range(4000), seed=1, num_views=4))
    assert set(counts) == {0, 1, 2, 3}
    assert max(abs(count - 1000) for count in counts.values()) < 4 * math.sqrt(4000 * 0.25 * 0.75)


def test_another_seed_draws_other_views():
    assert draw_views(range(50), seed=1, num_views=4) != draw_views(range(50), seed=2, num_views=4)
