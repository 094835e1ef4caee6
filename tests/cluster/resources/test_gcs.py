"""Requests to the control service; ``checks/test_nodes`` tests the nodes and the autoscaler of a real one."""

from types import SimpleNamespace

import pytest

from cluster.resources import gcs
from cluster.resources.gcs import Node, list_nodes


def test_living_nodes_are_listed_with_what_is_free(monkeypatch):
    rows = [
        {"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Resources": {"CPU": 4.0}, "Alive": name != "2"}
        for name in "123"
    ]
    monkeypatch.setattr("ray.nodes", lambda: rows)
    monkeypatch.setattr("ray._private.state.available_resources_per_node", lambda: {"1": {"CPU": 1.0}})
    assert list_nodes() == [
        Node("1", "10.0.0.1", {"CPU": 4.0}, {"CPU": 1.0}),
        Node("3", "10.0.0.3", {"CPU": 4.0}, {}),  # new, so its free resources are not known yet
    ]


def test_a_control_service_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:9"))
    with pytest.raises(ConnectionError, match=r"control service did not kill actor 0a0b \(.*127\.0\.0\.1:9.*\); try"):
        gcs.kill_actor("0a0b")
