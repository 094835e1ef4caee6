import fsspec
import pytest

from tests.support.s3 import s3_server


@pytest.fixture(scope="module")
def s3_variables():
    with s3_server() as variables:
        yield variables


@pytest.fixture
def s3_environment(s3_variables, monkeypatch):
    for name, value in s3_variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_url(s3_environment):
    """Return an empty folder in a bucket."""
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("bucket")
    yield "s3://bucket/runs/r"
    system.rm("bucket", recursive=True)


@pytest.fixture
def memory_url():
    yield "memory://bucket/runs/r"
    fsspec.filesystem("memory").rm("/", recursive=True)
