"""Checks that refuse a job before submission, on shortened responses of real dashboards of Ray 2.60."""

import re
import socket

import pytest

from cluster.checks.result import require
from cluster.config import ClusterConfig
from cluster.resources.gcs import Node
from cluster.submission.dashboard import DashboardSnapshot
from cluster.submission.precheck import OLDEST_PYTHON, check_submission
from tests.support.case_table import each_case
from tests.support.repository import ROOT

ELSEWHERE = [Node("n", "192.0.2.77", {"CPU": 2.0}, {"CPU": 2.0})]
HERE = [Node("n", "127.0.0.1", {"CPU": 2.0}, {"CPU": 2.0})]


def found(dashboard, **job):
    return {check.name: check for check in check_submission(dashboard, **job)}


@each_case(("python", "is_refused"), [("3.10.14", True), ("3.11.0", False), ("4.0.1", False)])
def test_a_python_that_cannot_run_the_code_is_refused(python, is_refused):
    dashboard = DashboardSnapshot(ELSEWHERE, python, may_grow=False)
    assert (found(dashboard)["versions"].verdict == "failed") is is_refused
    assert found(dashboard, has_python=True) == {}


def test_the_refused_python_is_named():
    with pytest.raises(
        ValueError, match=r"the cluster has Python 3\.9\.1, and this code needs 3\.11 or newer; build its image"
    ):
        require(check_submission(DashboardSnapshot(ELSEWHERE, "3.9.1", may_grow=False)))


def test_the_oldest_python_is_that_of_the_package():
    (declared,) = re.findall(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert tuple(map(int, declared)) == OLDEST_PYTHON


def test_workers_that_nothing_makes_room_for_are_refused():
    with pytest.raises(ValueError, match=r"2 workers of 1 CPU, 1 GPU do not fit: .* 2 CPU, 0 GPU, enough for 0; use"):
        require(check_submission(DashboardSnapshot(ELSEWHERE, "", may_grow=False), workers=ClusterConfig(use_gpu=True)))


def test_where_an_autoscaler_may_start_nodes_the_job_has_the_last_word():
    check = found(DashboardSnapshot(ELSEWHERE, "", may_grow=True), workers=ClusterConfig(num_workers=3))["resources"]
    assert (check.verdict, str(check)) == (
        "warning",
        "3 workers of 1 CPU do not fit: the cluster's 1 node has 2 CPU, enough for 2; "
        "the job first checks whether an autoscaler may start enough nodes",
    )


def test_of_a_cluster_whose_nodes_are_not_known_no_room_is_told():
    assert found(DashboardSnapshot([], "", may_grow=True), workers=ClusterConfig(num_workers=3)) == {}


WITH_GPU = [*ELSEWHERE, Node("n", "192.0.2.78", {"CPU": 2.0, "GPU": 2.0}, {"CPU": 2.0})]


@each_case(
    ("nodes", "may_grow", "verdict", "remedy"),
    [
        (ELSEWHERE, False, "failed", "leave out --num-gpus, or use nodes with GPUs"),
        (ELSEWHERE, True, "warning", "leave out --num-gpus, or use nodes with GPUs"),
        (WITH_GPU, False, "failed", "use --num-gpus 2, or larger nodes"),
        ([*WITH_GPU, Node("n", "192.0.2.79", {"GPU": 4.0}, {})], False, "ok", ""),
    ],
)
def test_gpus_of_the_jobs_own_process_must_be_on_one_node(nodes, may_grow, verdict, remedy):
    check = found(DashboardSnapshot(nodes, "", may_grow), num_gpus=3.0)["gpu"]
    assert (check.verdict, check.remedy) == (verdict, remedy)


@pytest.fixture
def tracker():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://localhost:{server.getsockname()[1]}"


def test_a_tracker_of_this_machine_alone_is_refused(tracker):
    with pytest.raises(ValueError, match=r"MLflow at .* is on this machine, which is not a node of the cluster; s"):
        require(check_submission(DashboardSnapshot(ELSEWHERE, "", may_grow=False), tracker=tracker))


def test_a_tracker_on_a_machine_of_the_cluster_is_left_to_the_job(tracker):
    assert found(DashboardSnapshot(HERE, "", may_grow=False), tracker=tracker)["tracking"].verdict == "ok"


@each_case("address", ["http://127.0.0.1:9", "http://mlflow:5000", "sqlite:////mnt/runs/mlflow.db", "databricks"])
def test_what_does_not_answer_here_may_answer_there(address):
    assert found(DashboardSnapshot(ELSEWHERE, "", may_grow=False), tracker=address)["tracking"].verdict == "ok"


def test_a_tracking_database_relative_to_this_machine_is_refused():
    with pytest.raises(ValueError, match=r"tracking address sqlite:///runs/mlflow\.db is relative to a folder on"):
        require(check_submission(DashboardSnapshot(ELSEWHERE, "", may_grow=False), tracker="sqlite:///runs/mlflow.db"))
