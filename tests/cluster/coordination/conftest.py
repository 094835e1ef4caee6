import pytest


@pytest.fixture(autouse=True)
def quick_watchdog(monkeypatch):
    """Let the watchdog look often: tests wait for what it sees."""
    monkeypatch.setattr("cluster.coordination.watchdog._POLL_SECONDS", 0.05)
