"""Folders are distinguished from URLs, and credentials are not recorded."""

from pathlib import Path

import pytest

from shards.storage.location import local_folder, parse_location, refuse_credentials, without_credentials


@pytest.mark.parametrize(
    ("location", "folder"),
    [
        ("shards", Path("shards")),
        ("/data/a set", Path("/data/a set")),
        ("file:///data/a%20set", Path("/data/a set")),
        ("file://localhost/data", Path("/data")),
        ("local:///data", Path("/data")),
        ("s3://bucket/shards", None),
    ],
)
def test_a_path_or_file_url_is_a_folder(location, folder):
    assert (local_folder(location), parse_location(location)) == (folder, folder or location)


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/set", "s3://key@bucket/set", "s3://key:se@cret@bucket/set"])
def test_credentials_are_left_out_and_refused(url):
    assert without_credentials(url) == "s3://bucket/set"
    with pytest.raises(ValueError, match="the address of shards, s3://bucket/set, contains credentials"):
        refuse_credentials(url, "shards")


@pytest.mark.parametrize("location", [None, Path("a@b"), "s3://bucket/set"])
def test_a_location_without_credentials_is_accepted(location):
    refuse_credentials(location, "shards")
