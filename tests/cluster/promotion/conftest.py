"""Packages of registered models that tests share."""

import pytest

from tests.support.packages import packaged_once


@pytest.fixture(scope="module", autouse=True)
def packages(package_folder):
    """Make each package once for all tests."""
    with packaged_once(package_folder):
        yield
