"""Check results from made-up reports of nodes; ``test_nodes`` has those of a real cluster."""

from dataclasses import replace

import pytest

from cluster.checks.job import evaluate_reports
from cluster.checks.nodes import NodeReport
from cluster.checks.probe import ProbeResult, versions
from cluster.checks.result import CheckResult, require
from cluster.config import ClusterConfig, StorageConfig, TrackingConfig, TrainRun


@pytest.fixture
def run(tmp_path):
    return TrainRun(shards=tmp_path / "shards", storage=StorageConfig(home=tmp_path / "home"))


def verdicts(run, *nodes, **options):
    """Return the checks by name of a cluster with these faults on its nodes."""
    reports = [
        NodeReport(f"10.0.0.{number}", 1.0, ProbeResult(versions(), faults))
        for number, faults in enumerate(nodes, start=1)
    ]
    return {check.name: check for check in evaluate_reports(run, reports, **options)}


def test_nodes_without_faults_pass(run):
    found = {name: check.verdict for name, check in verdicts(run, {}, {}).items()}
    assert found == {
        "cluster": "ok", "versions": "ok", "shards": "ok", "home": "ok", "checkpoints": "not asked", "tracking": "ok",
        "gpu": "not asked",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "subject", "message"),
    [
        ("home", "home", r"home folder .*/home cannot be used on 1 of 2 nodes, first 10\.0\.0\.2 \(x\); set --home"),
        ("shards", "files", r"/shards, its features or the weights cannot be read on 1 of 2 .*; put them on stor"),
        ("checkpoints", "checkpoints", r"s3://bucket/c cannot be written on 1 of 2 .*; correct --checkpoints"),
        ("cluster", "network", r"workers cannot be connected on 1 of 2 nodes, .*\(x\); correct GLOO_SOCKET_IFNAME"),
        ("gpu", "gpu", r"torch cannot use the GPUs of 1 of 2 nodes, .*; install the CUDA build of torch"),
    ],
)  # fmt: skip
def test_a_fault_of_one_node_refuses_the_job(run, name, subject, message):
    asked = replace(run, cluster=ClusterConfig(use_gpu=True), storage=replace(run.storage, checkpoints="s3://bucket/c"))
    with pytest.raises(ValueError, match=message):
        require(list(verdicts(asked, {}, {subject: "x"}).values()))
    assert verdicts(asked, {}, {subject: "x"})[name].verdict == "failed"


def test_gpus_are_asked_of_the_nodes_that_have_any(run):
    asked = replace(run, cluster=ClusterConfig(use_gpu=True))
    assert evaluate_reports(asked, [NodeReport("10.0.0.1", 0.0, ProbeResult(versions(), {}))])[-1] == CheckResult(
        name="gpu", verdict="not asked", found="no node has a GPU"
    )


def test_a_node_that_gives_no_answer_refuses_the_job(run):
    reports = [NodeReport("10.0.0.2", 0.0, None, "no answer within 30 s")]
    with pytest.raises(
        ConnectionError, match=r"1 of 1 nodes do not answer, first 10\.0\.0\.2 \(no answer .*; restart these nodes"
    ):
        require(evaluate_reports(run, reports))


def test_another_version_on_a_node_refuses_the_job(run):
    report = ProbeResult(versions() | {"Python": "3.9.1"}, {})
    with pytest.raises(
        ValueError,
        match=r"node 10\.0\.0\.2 does not have this machine's versions \(Python 3\.9\.1, not 3.*; install the same",
    ):
        require(evaluate_reports(run, [NodeReport("10.0.0.2", 0.0, report)]))


def test_a_tracker_that_only_the_driver_reaches_is_a_warning(run):
    check = verdicts(run, {}, {"tracker": "refused"})["tracking"]
    assert (check.verdict, "does not answer 1 of 2 nodes, first 10.0.0.2 (refused); the driver's" in str(check)) == (
        "warning", True,
    )  # fmt: skip


def test_a_tracker_that_the_driver_does_not_reach_refuses_the_job(run):
    tracked = replace(run, tracking=TrackingConfig(uri="http://127.0.0.1:9"))
    with pytest.raises(ConnectionError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer .*; start the server"):
        require(list(verdicts(tracked, {}).values()))


def test_a_run_that_the_tracker_knows_goes_on_without_it(run, caplog):
    tracked = replace(run, tracking=TrackingConfig(uri="http://127.0.0.1:9"))
    require(list(verdicts(tracked, {}, needs_tracker=False).values()))
    assert "tracking: MLflow at http://127.0.0.1:9 does not answer" in caplog.text
