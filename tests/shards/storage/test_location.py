"""Folders are distinguished from URLs, and credentials are not recorded."""

from pathlib import Path

import pytest

from shards.storage.location import (
    credentials_mistake,
    local_folder,
    parse_location,
    refuse_credentials,
    with_home,
    without_credentials,
)
from tests.support.case_table import each_case


@pytest.mark.parametrize(
    ("path", "found"), [("~", "{home}"), ("~/a/b", "{home}/a/b"), ("~a/b", "~a/b"), ("a/~/b", "a/~/b"), ("/~", "/~")]
)
def test_a_leading_tilde_is_the_users_home(path, found, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert with_home(Path(path)) == parse_location(path) == Path(found.format(home=tmp_path))


@each_case(
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


@each_case("url", ["s3://key:secret@bucket/set", "s3://key@bucket/set", "s3://key:se@cret@bucket/set"])
def test_credentials_are_left_out_and_refused(url):
    assert without_credentials(url) == "s3://bucket/set"
    with pytest.raises(ValueError, match=r"shards s3://bucket/set contains credentials, .* set AWS_ACCESS_KEY_ID and"):
        refuse_credentials(url, "shards")


@each_case(
    ("url", "shown"),
    [
        ("postgresql://u:p@ss/word@host/db", "postgresql://host/db"),  # a password may contain anything
        ("http://user:8080@host", "http://host"),
        ("git+https://TOKEN@host/a", "git+https://host/a"),
        ("--extra-index-url https://user:TOKEN@host/simple", "--extra-index-url https://host/simple"),
        ("simplecache::s3://key:secret@bucket/set", "simplecache::s3://bucket/set"),
        ("HTTPS://U:P@h", "HTTPS://h"),
        ("s3:/key:secret@bucket/set", "s3:/bucket/set"),  # as a path
        ("postgresql://h/db?user=u&password=p", "postgresql://h/db?user=u&password=***"),
        ("http://h?x=1&PASSWORD=a&y=2", "http://h?x=1&PASSWORD=***&y=2"),
        ("https://h/c?sv=1&sig=a%2F&se=2", "https://h/c?sv=1&sig=***&se=2"),
        ("http://h?x=1&pass%77ord=a&y%20=2", "http://h?x=1&pass%77ord=***&y%20=2"),
        ("https://h/x?AWSAccessKeyId=K&Signature=s", "https://h/x?AWSAccessKeyId=***&Signature=***"),
        ("https://h/?X-Amz-Signature=s&X-Amz-Date=1", "https://h/?X-Amz-Signature=***&X-Amz-Date=1"),
        ("s3://b/x?api_key=k&key=k", "s3://b/x?api_key=***&key=***"),
        ("mssql+pyodbc://?odbc_connect=UID%3Du%3BPWD%3Dp", "mssql+pyodbc://?odbc_connect=UID%3Du%3BPWD%3D***"),
    ],
)
def test_credentials_are_found_in_every_part_of_a_url(url, shown):
    assert without_credentials(url) == shown
    assert str(credentials_mistake(url, "uri")).startswith(f"uri {shown} contains credentials, but addresses are")


@each_case(
    "location",
    [
        None,
        Path("a@b"),
        "s3://bucket/set",
        "s3://bucket/a@b/c",
        "http://host:5000/a@b?c=d@e",
        "http://[::1]:80/a@b",
        "sqlite:////runs/a@b/mlflow.db",
        "models:/captioner@champion",
        "git+ssh://git@host/a",  # a user without a password, and no token
        "postgresql+psycopg2://me@host/db",
        "package @ https://host/package.whl",
        "postgresql://h/db?sslmode=verify-full&ssl_key=/etc/key.pem",
        "http://h?monkey=1&keyspace=2",
    ],
)
def test_a_location_without_credentials_is_accepted_and_kept(location):
    refuse_credentials(location, "shards")
    assert without_credentials(f"{location}") == f"{location}"


def test_a_password_in_the_message_of_a_database_is_left_out():
    assert without_credentials("cannot connect: host=h password=p user=u") == (
        "cannot connect: host=h password=*** user=u"
    )
