from pathlib import Path

import pytest
import tyro
from pydantic import TypeAdapter, ValidationError

from cluster.locations import Location, OptionalLocation
from tests.support.case_table import each_case


@each_case(
    ("given", "location"),
    [("data/shards", Path("data/shards")), (Path("data"), Path("data")), ("s3://bucket/data", "s3://bucket/data")],
)
def test_a_location_of_a_file_is_a_path_or_a_url(given, location):
    assert [TypeAdapter(kind).validate_python(given) for kind in (Location, OptionalLocation)] == [location] * 2


@pytest.mark.parametrize(("given", "location"), [("data", Path("data")), ("s3://bucket/data", "s3://bucket/data")])
def test_a_location_of_a_flag_is_a_path_or_a_url(given, location):
    assert tyro.cli(Location, args=[given]) == location


def test_a_location_may_be_left_out_where_it_is_optional():
    assert TypeAdapter(OptionalLocation).validate_python(None) is None
    with pytest.raises(ValidationError, match="it should be a folder or a URL"):
        TypeAdapter(Location).validate_python(None)


def test_what_is_no_text_is_refused():
    with pytest.raises(ValidationError, match="it should be a folder or a URL"):
        TypeAdapter(OptionalLocation).validate_python(7)
