"""What a feature set's digest depends on, and invalid settings."""

import pytest

from shards.features.manifest import FeatureEncoder, FeatureSettings, feature_digest
from tests.support.case_table import each_case

ENCODER = FeatureEncoder(backbone="resnet18", weights="DEFAULT", image_size_px=64)


@each_case(
    ("changes", "is_same"),
    [
        ({"seed": 9}, True),  # nothing is drawn for a single view
        ({"crop_area": 0.2, "flip": False}, True),
        ({"regions": "grid"}, False),
        ({"precision": "bf16"}, False),
        ({"views": 2}, False),
        ({"views": 2, "seed": 9}, False),
    ],
)
def test_the_digest_is_of_what_decides_about_features(changes, is_same):
    first, second = (feature_digest("d", ENCODER, FeatureSettings(**options)) for options in ({}, changes))
    assert (first == second) == is_same


@each_case("changed", ["seed", "crop_area", "flip"])
def test_the_digest_of_several_views_is_of_what_they_are_drawn_by(changed):
    other = {"seed": 9, "crop_area": 0.2, "flip": False}[changed]
    digests = [feature_digest("d", ENCODER, FeatureSettings(views=2, **options)) for options in ({}, {changed: other})]
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"views": 0}, "views 0 is too few; use 1 or more"), ({"crop_area": 0.0}, "crop_area 0.0 is out of range")],
)
def test_settings_out_of_bounds_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FeatureSettings(**changes)
