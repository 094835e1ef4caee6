"""Snapshots of a cluster, from shortened responses of real dashboards of Ray 2.60."""

from cluster.resources.gcs import Node
from cluster.submission.dashboard import DashboardSnapshot, read_dashboard


def answers(*, kind="node_ab", used=0.5):
    nodes = [
        {"node_id": "ab", "node_ip": "10.0.0.1", "state": "ALIVE", "resources_total": {"CPU": 2.0, "GPU": 1.0}},
        {"node_id": "cd", "node_ip": "10.0.0.2", "state": "DEAD", "resources_total": {}},
    ]
    status = {
        "autoscalerReport": {"nodeTypeMapping": {"ab": kind}},
        "loadMetricsReport": {"usageByNode": {"ab": {"CPU": [used, 2.0]}}},
    }
    return {
        "/api/v0/nodes": {"result": {"result": nodes}},
        "/api/cluster_status": {"clusterStatus": status},
        "/api/v0/cluster_metadata": {"pythonVersion": "3.11.7"},
    }


def asked(documents):
    return read_dashboard(lambda path, parameters: documents.get(path))


def test_living_nodes_are_told_with_what_is_free_of_them():
    node = Node("ab", "10.0.0.1", {"CPU": 2.0, "GPU": 1.0}, {"CPU": 1.5, "GPU": 1.0})
    assert asked(answers()) == DashboardSnapshot([node], "3.11.7", may_grow=False)


def test_nodes_of_an_autoscaler_have_kinds_and_are_counted_by_address():
    documents = answers(kind="ray.head.default")
    usage = documents["/api/cluster_status"]["clusterStatus"]["loadMetricsReport"]
    usage["usageByNode"] = {"10.0.0.1": {"CPU": [2.0, 2.0]}}
    dashboard = asked(documents)
    assert (dashboard.may_grow, dashboard.nodes[0].free["CPU"]) == (True, 0.0)


def test_of_a_dashboard_that_tells_nothing_nothing_is_known():
    nothing = {"/api/cluster_status": {"clusterStatus": None}}  # as Ray's autoscaler v2 reports
    assert [asked(documents) for documents in ({}, nothing)] == [DashboardSnapshot([], "", may_grow=True)] * 2
