"""A tracker with a run that never trained, its best checkpoint, and names for the models of each test."""

import pytest

from cluster.config import StorageConfig, TrackingConfig
from cluster.registry.models import resolve_model
from cluster.tracking.client import connect
from tests.support.packages import packaged_once


@pytest.fixture(scope="session")
def tiny_client(tiny_run):
    """Return a client of the tracker of ``tiny_run``."""
    return connect(TrackingConfig(), StorageConfig(home=tiny_run.parent.parent))


@pytest.fixture(scope="module")
def client(tiny_client):
    """Return the client of the module's tracker: that of ``tiny_run``, unless the module has another."""
    return tiny_client


@pytest.fixture(scope="module")
def model(tiny_run, client):
    """Return the best checkpoint of ``tiny_run``."""
    return resolve_model(str(tiny_run), client)


@pytest.fixture(scope="session")
def stored(tiny_client, tiny_run):
    """Return a version that accepts image bytes only."""
    from cluster.registry.registration import register

    return register(resolve_model(str(tiny_run), tiny_client), "bytes", tiny_client)


@pytest.fixture(scope="session")
def served(stored, tiny_client):
    """Return that version, as MLflow serves it."""
    from tests.support.served_versions import load

    return load(stored, tiny_client)


@pytest.fixture
def name(request):
    """Return a model's name that only this test uses."""
    return request.node.name


@pytest.fixture(scope="module", autouse=True)
def packages(package_folder):
    """Make each package once for all tests."""
    with packaged_once(package_folder):
        yield
