from pathlib import Path

import pytest

from shards.samples import CaptionedImage, key_of
from tests.support.case_table import each_case


@pytest.mark.parametrize(("image_id", "key"), [(391895, "000000391895"), (10**12, "1000000000000")])
def test_keys_have_the_twelve_digits_of_coco(image_id, key):
    image = CaptionedImage(image_id=image_id, path=Path("a.jpg"), captions=("A dog.",))
    assert (key_of(image_id), image.key) == (key, key)


@each_case(
    ("image_id", "key"),
    [
        ("dogs/one.jpg", "dogs%2Fone%2Ejpg"),
        ("..", "%2E%2E"),
        ("100%", "100%25"),
        ("Straße 7", "Straße%207"),
        ("a_b-c", "a_b-c"),
        ("犬", "犬"),
    ],
)
def test_keys_of_texts_have_no_dot_and_no_slash(image_id, key):
    assert key_of(image_id) == key
