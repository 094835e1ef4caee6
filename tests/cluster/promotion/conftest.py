"""Packages of registered models that the tests of a module share."""

import pytest

from tests.support.packages import packaged_once


@pytest.fixture(scope="module", autouse=True)
def packages(tmp_path_factory):
    """Make each package once for all tests of a module."""
    with packaged_once(tmp_path_factory.mktemp("packages")):
        yield
