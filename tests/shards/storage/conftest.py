import fsspec
import pytest


@pytest.fixture
def memory():
    """Return a file system in memory, which is empty after the test."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


@pytest.fixture
def waits():
    """Return the waits between attempts, in seconds."""
    return []
