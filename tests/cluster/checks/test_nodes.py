"""Checks on a real cluster of two raylets; the second does not see one of this machine's folders, has other code, and
reports a GPU that does not exist.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cluster.checks import nodes
from cluster.checks.job import check_job
from cluster.checks.result import NAMES
from cluster.config import ClusterConfig, StorageConfig, TrackingConfig, TrainRun
from cluster.resources.capacity import check_capacity
from cluster.resources.session import cluster_session
from tests.support.ports import free_port
from tests.support.repository import ROOT

pytestmark = pytest.mark.cluster
RAY = Path(sys.executable).with_name("ray")
JOBS = ROOT / "jobs"
HIDE = f'mount -t tmpfs none "$1" && mount --bind "$2" {JOBS} && shift 2 && exec "$@"'


@pytest.fixture(scope="module")
def hidden_home(tmp_path_factory):
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def two_nodes(hidden_home, tmp_path_factory):
    """Return the second node's process, in a session on a cluster of a head and a raylet in a mount namespace. In it,
    ``hidden_home`` is another, empty folder, and ``jobs`` has other code.
    """
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("this machine permits no mount namespaces, by which a node can be made that sees another folder")
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    folders = [
        Path("/tmp") / f"ray-{os.getpid()}-{number}" for number in range(2)
    ]  # short, because the length of a socket's path is limited
    common = ["--block", "--num-cpus", "1", "--disable-usage-stats", "--temp-dir"]
    port = address.partition(":")[2]
    head = [RAY, *f"start --head --port {port} --include-dashboard false".split(), *common, folders[0]]
    altered = tmp_path_factory.mktemp("altered") / "jobs"
    shutil.copytree(JOBS, altered)
    (altered / "later.py").touch()
    node = [RAY, "start", "--address", address, "--num-gpus", "1", *common, folders[1]]
    started = []
    try:
        for command in (head, ["unshare", "-m", "sh", "-c", HIDE, "sh", hidden_home, altered, *node]):
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(command, env=environment, **silent))
            wait_for_port(address, started[-1])
        with cluster_session(ClusterConfig(address=address)):
            wait_for_nodes(2)
            yield psutil.Process(started[1].pid)
    finally:
        family = [one for process in started for one in psutil.Process(process.pid).children(recursive=True)]
        for process in [*started, *family]:
            process.kill()
        for process in started:
            process.wait()
        psutil.wait_procs(family, timeout=30)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(address, process, *, seconds=60):
    host, _, port = address.partition(":")
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, f"ray start ended with {process.returncode}"
        assert time.monotonic() < deadline, f"nothing listened at {address} within {seconds} s"
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return


def wait_for_nodes(count, *, seconds=60):
    import ray

    deadline = time.monotonic() + seconds
    while sum(node["Alive"] for node in ray.nodes()) < count:
        assert time.monotonic() < deadline, f"there were not {count} nodes within {seconds} s"
        time.sleep(0.1)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def run(home):
    return TrainRun(storage=StorageConfig(home=home), cluster=ClusterConfig(num_workers=2, use_gpu=False))


@pytest.fixture(scope="module")
def found(two_nodes, hidden_home, drawn_shards):
    """Return the checks by name of a job that needs everything that the second node lacks."""
    shards = hidden_home / "shards"
    shutil.copytree(drawn_shards, shards)
    cluster = ClusterConfig(num_workers=1, use_gpu=True)
    checkpoints = (hidden_home / "checkpoints").as_uri()  # made there and here alike
    storage = StorageConfig(home=hidden_home, checkpoints=checkpoints)
    tracking = TrackingConfig(uri="http://127.0.0.1:9")
    asked = TrainRun(shards=shards, cluster=cluster, storage=storage, tracking=tracking)
    return {check.name: check for check in check_job(asked)}


def test_all_that_a_job_needs_is_told_at_once(found):
    verdicts = {name: check.verdict for name, check in found.items()}
    failed = ("versions", "shards", "home", "checkpoints", "tracking", "gpu")
    assert verdicts == {name: "failed" if name in failed else "ok" for name in NAMES} | {"disk": "not asked"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("home", "cannot be used on 1 of 2 nodes, first "),
        ("home", "(it does not see a file that another node wrote there); set --home to storage that all nodes mount"),
        ("checkpoints", "hidden0/checkpoints cannot be written on 1 of 2 nodes, first "),
        ("shards", "manifest.json'); put them on storage that all nodes mount"),
        ("versions", " does not have this machine's versions (captioning "),
        ("gpu", "torch cannot use the GPUs of 1 of 1 nodes, first "),
        ("cluster", "every node answers (2)"),
        ("resources", "needs 1 worker, room for 1 now"),
    ],
)
def test_what_was_found_is_told(found, name, told):
    assert told in str(found[name])


def test_a_job_that_can_work_passes_but_for_the_other_code(two_nodes, run, drawn_shards):
    checks = check_job(replace(run, shards=drawn_shards))
    assert {check.name: check.verdict for check in checks} == dict.fromkeys(NAMES, "ok") | {
        "versions": "failed", "checkpoints": "not asked", "gpu": "not asked",
    }  # fmt: skip


def test_the_probe_leaves_nothing_behind(two_nodes, run, home):
    check_job(run)
    assert not home.exists()


def test_checkpoints_at_an_unknown_kind_of_place_fail_on_every_node(two_nodes, run):
    asked = replace(run, storage=replace(run.storage, checkpoints="floppy://a/b"))
    (told,) = [check for check in check_job(asked) if check.name == "checkpoints"]
    assert "floppy://a/b cannot be written on 2 of 2 nodes, first " in str(told)
    assert "Protocol not known: floppy" in str(told)


def test_damaged_shards_are_found(two_nodes, run, drawn_shards, tmp_path):
    shutil.copytree(drawn_shards, tmp_path / "shards")
    (tmp_path / "shards" / "train-000000.tar").unlink()
    (told,) = [check for check in check_job(replace(run, shards=tmp_path / "shards")) if check.name == "shards"]
    assert (told.verdict, "lacks 1 of 3 shards, first train-000000.tar; run captioning convert" in str(told)) == (
        "failed", True,
    )  # fmt: skip


def test_checkpoints_that_do_not_fit_the_disk_are_refused(two_nodes, run, drawn_shards, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    told = check_job(replace(run, shards=drawn_shards))[-1]
    assert told.verdict == "failed"
    assert " GiB, 1.0 GiB free at" in str(told)
    assert "; free some space, lower --training.keep-best" in str(told)


def test_workers_are_counted_over_all_nodes(two_nodes):
    assert check_capacity(ClusterConfig(num_workers=2)) == (2, 2, 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ClusterConfig(num_workers=3), "3 workers of 1 CPU do not fit: the cluster's 2 nodes have 2 CPU, enough for 2"),
        # Two CPUs there are, and no node has both.
        (ClusterConfig(num_workers=1, cpus_per_worker=2), "1 worker of 2 CPU does not fit: .* enough for 0"),
        (ClusterConfig(num_workers=1, resources_per_worker={"TPU": 1}), "1 worker of 1 CPU, 1 TPU does not fit"),
        (ClusterConfig(num_workers=2, use_gpu=True), "2 workers of 1 CPU, 1 GPU do not fit: .* 1 GPU, enough for 1"),
    ],
)
def test_workers_that_no_node_can_hold_are_refused(two_nodes, config, message):
    with pytest.raises(ValueError, match=message):
        check_capacity(config)


def test_room_that_others_have_taken_is_a_warning(two_nodes, run):
    import ray

    group = ray.util.placement_group([{"CPU": 1}])
    ray.get(group.ready())
    checks = {check.name: check for check in check_job(run)}
    ray.util.remove_placement_group(group)
    assert (checks["resources"].verdict, checks["resources"].found) == (
        "warning", "needs 2 workers, room for 1 now, and for 2 once nothing else runs on the cluster",
    )  # fmt: skip


def test_nodes_that_the_autoscaler_may_start_count(two_nodes):
    import ray
    from ray.core.generated import autoscaler_pb2

    client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    group = autoscaler_pb2.NodeGroupConfig(name="big", resources={"CPU": 4}, max_count=3)
    client.report_cluster_config(autoscaler_pb2.ClusterConfig(node_group_configs=[group]).SerializeToString())
    try:
        assert check_capacity(ClusterConfig(num_workers=12)).autoscaled == 12
        with pytest.raises(ValueError, match=r"enough for 2, and its autoscaler makes room for 12; use .*workers 12"):
            check_capacity(ClusterConfig(num_workers=13))
    finally:
        client.report_cluster_config(autoscaler_pb2.ClusterConfig().SerializeToString())


def test_a_node_that_dies_over_the_question_is_not_asked_of(two_nodes, monkeypatch, run):
    alive = nodes.list_nodes()
    gone = alive[0]._replace(id="e" * len(alive[0].id))  # known alive a moment ago
    answers = iter([alive, [*alive, gone], alive])
    monkeypatch.setattr(nodes, "list_nodes", lambda: next(answers))
    monkeypatch.setattr("cluster.checks.job.list_nodes", lambda: next(answers))
    assert check_job(run)[0].found == "every node answers (2)"


def test_a_node_that_is_cut_off_is_named_in_time(two_nodes, monkeypatch, run):
    monkeypatch.setattr(nodes, "_ANSWER_SECONDS", 3.0)
    (raylet,) = [one for one in two_nodes.children(recursive=True) if one.name() == "raylet"]
    raylet.suspend()
    started = time.monotonic()
    try:
        told = check_job(run)[0]
    finally:
        raylet.resume()
    assert (told.verdict, "1 of 2 nodes do not answer" in told.found, "no answer within 3 s" in told.found) == (
        "failed", True, True,
    )  # fmt: skip
    assert time.monotonic() - started < 15
