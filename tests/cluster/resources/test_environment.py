import os

from cluster.resources.environment import set_library_defaults


def test_what_the_user_has_not_set_is_set(monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    set_library_defaults()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    set_library_defaults()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


def test_a_token_file_alone_switches_no_authentication_on(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    set_library_defaults()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
