import os

import pytest

from cluster.resources.environment import set_library_defaults


@pytest.mark.parametrize(("name", "default"), [("RAY_USAGE_STATS_ENABLED", "0"), ("MLFLOW_DISABLE_TELEMETRY", "true")])
@pytest.mark.parametrize("chosen", [None, "1", "false"])
def test_usage_is_not_reported_unless_the_user_chooses_it(monkeypatch, name, default, chosen):
    monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv(name, chosen)
    set_library_defaults()
    assert os.environ[name] == (chosen or default)


def test_a_token_file_alone_switches_no_authentication_on(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    set_library_defaults()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
