from pathlib import Path

import pytest

from shards.samples import CaptionedImage, key_of


@pytest.mark.parametrize(("image_id", "key"), [(391895, "000000391895"), (10**12, "1000000000000")])
def test_keys_have_the_twelve_digits_of_coco(image_id, key):
    image = CaptionedImage(image_id=image_id, path=Path("a.jpg"), captions=("A dog.",))
    assert (key_of(image_id), image.key) == (key, key)
