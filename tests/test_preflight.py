"""A real cluster of two raylets, of which the second does not see one of the folders of this machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster import preflight
from cluster.config import ClusterConfig
from cluster.preflight import check_capacity, check_files_are_shared, check_home_is_shared
from cluster.session import cluster_session

pytestmark = pytest.mark.cluster
RAY = Path(sys.executable).with_name("ray")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def hidden_home(tmp_path_factory):
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def two_nodes(hidden_home, tmp_path_factory):
    """Return a session on a head and a raylet in a mount namespace where ``hidden_home`` is another, empty folder."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("this machine permits no mount namespaces, by which a node can be made that sees another folder")
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    folders = [Path("/tmp") / f"ray-{os.getpid()}-{number}" for number in range(2)]  # short, for sockets lie below
    common = ["--block", "--num-cpus", "1", "--disable-usage-stats", "--temp-dir"]
    head = [
        RAY,
        "start",
        "--head",
        "--port",
        address.partition(":")[2],
        "--include-dashboard",
        "false",
        *common,
        folders[0],
    ]
    node = [RAY, "start", "--address", address, *common, folders[1]]
    hide = f'mount -t tmpfs none {hidden_home} && exec "$@"'
    started = []
    try:
        for command in (head, ["unshare", "-m", "sh", "-c", hide, "sh", *node]):
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(command, env=environment, **silent))
            wait_for_port(address, started[-1])
        with cluster_session(ClusterConfig(address=address)):
            wait_for_nodes(2)
            yield
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


def test_a_home_that_a_node_does_not_see_is_refused(two_nodes, hidden_home):
    with pytest.raises(
        ValueError, match=r"is local: 1 of 2 nodes do not see it, first .*; use a --home on storage that all"
    ):
        check_home_is_shared(hidden_home)


def test_a_home_that_all_nodes_see_is_accepted(two_nodes, tmp_path):
    check_home_is_shared(tmp_path)


def test_a_file_that_a_node_does_not_see_is_refused(two_nodes, hidden_home):
    (hidden_home / "manifest.json").touch()
    with pytest.raises(
        ValueError, match=r"manifest\.json is local: 1 of 2 nodes do not see it, first .*; put it on storage"
    ):
        check_files_are_shared([hidden_home / "manifest.json"])


def test_the_probe_leaves_nothing_behind(two_nodes, tmp_path):
    check_home_is_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_workers_are_counted_over_all_nodes(two_nodes):
    check_capacity(ClusterConfig(num_workers=2))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ClusterConfig(num_workers=3), "3 workers of 1 CPU do not fit: the cluster's 2 nodes have 2 CPU, enough for 2"),
        # Two CPUs there are, and no node has both.
        (ClusterConfig(num_workers=1, cpus_per_worker=2), "1 workers of 2 CPU do not fit: .* enough for 0"),
        (ClusterConfig(num_workers=1, resources_per_worker={"TPU": 1}), "1 workers of 1 CPU, 1 TPU do not fit"),
    ],
)
def test_workers_that_no_node_can_hold_are_refused(two_nodes, config, message):
    with pytest.raises(ValueError, match=message):
        check_capacity(config)


def test_a_node_that_dies_over_the_question_is_not_asked_of(two_nodes, monkeypatch, tmp_path):
    nodes = preflight._live_nodes()
    gone = "e" * len(next(iter(nodes)))  # known alive a moment ago
    answers = iter([nodes | {gone: "10.0.0.9"}, nodes])
    monkeypatch.setattr(preflight, "_live_nodes", lambda: next(answers))
    check_home_is_shared(tmp_path)
