import contextlib
import importlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from cluster.config import ClusterConfig
from cluster.resources import gcs
from cluster.resources.environment import set_library_defaults
from cluster.resources.session import cluster_session


@contextlib.contextmanager
def control_service(answer):
    """Serve a fake control service that answers the first request of a client; yield host:port."""
    set_library_defaults()
    from ray.core.generated import gcs_service_pb2_grpc

    service = gcs_service_pb2_grpc.NodeInfoGcsServiceServicer()
    service.CheckAlive = answer
    server = grpc.server(ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def refusal(address):
    with (
        pytest.raises(ConnectionError, match=r"^[^\n]+; [^\n]+$") as refused,
        cluster_session(ClusterConfig(address=address)),
    ):
        pass
    return str(refused.value)


def imported_files(packages):
    return [importlib.import_module(package).__file__ for package in packages]


def test_what_never_answers_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(gcs, "_ALIVE_SECONDS", 0.5)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts the connection and sends nothing
        told = refusal(f"127.0.0.1:{silent.getsockname()[1]}")
    assert ("is not a Ray cluster (Deadline Exceeded); use the port of its control service" in told) is True, told
    assert time.monotonic() - started < 10


def test_what_speaks_another_language_is_refused():
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for _ in range(2):  # the first connection only tests the port; the second is Ray's request
                connection, _ = server.accept()
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

        pool.submit(serve)
        told = refusal(f"127.0.0.1:{server.getsockname()[1]}")
    assert "is not a Ray cluster" in told
    assert "not the dashboard's port (8265)" in told


def test_a_cluster_of_another_release_is_refused():
    from ray.core.generated import gcs_service_pb2

    with control_service(lambda request, context: gcs_service_pb2.CheckAliveReply(ray_version="2.9.3")) as address:
        told = refusal(address)
    assert "runs Ray 2.9.3, and this process runs 2." in told
    assert told.endswith("; install the same version on both sides")


def test_a_cluster_that_wants_a_token_is_refused():
    def refuse(request, context):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: Authentication token is missing")

    with control_service(refuse) as address:
        assert (
            "requires a token (InvalidAuthToken: Authentication token is missing); set RAY_AUTH_MODE=token"
            in refusal(address)
        )


def test_an_address_where_nothing_listens_is_refused():
    refused = cluster_session(ClusterConfig(address="127.0.0.1:9"))
    with (
        pytest.raises(ConnectionError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 .*start it, or correct"),
        refused,
    ):
        pass


def test_the_address_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConnectionError, match="answers at 127"), cluster_session(ClusterConfig()):
        pass


def test_a_folder_of_temporary_files_that_is_too_long_for_rays_sockets_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", f"{tmp_path}/{'long' * 25}")
    message = r"too long a path for Ray's sockets .*; set RAY_TMPDIR to a short one"
    with pytest.raises(ValueError, match=message), cluster_session(ClusterConfig()):
        pass


@pytest.mark.cluster
def test_without_an_address_ray_starts_here_and_ends_with_the_session(monkeypatch, tmp_path):
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Python finds these two before the real packages, unless the workers search the driver's folder first.
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "__init__.py").touch()
    (tmp_path / "cluster.py").touch()
    monkeypatch.chdir(tmp_path)
    with cluster_session(ClusterConfig()):
        with cluster_session(ClusterConfig()):
            pass
        was_up = ray.is_initialized()
        node: Any = ray._private.worker._global_node
        started = {kind for kind, _ in node.live_processes()}
        files = ray.get(ray.remote(imported_files).remote(["cluster", "shards"]))
    assert (was_up, ray.is_initialized()) == (True, False)
    assert files == imported_files(["cluster", "shards"])
    # No dashboard, autoscaler or log monitor; the reaper ends the others with this process where the kernel cannot.
    assert started - {"reaper"} == {"gcs_server", "raylet"}
