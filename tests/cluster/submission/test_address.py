import contextlib
import importlib.metadata
import socket
import threading

import pytest

from cluster.submission import address
from cluster.submission.address import address_set, check_server, server_address
from tests.support.case_table import each_case
from tests.support.http_server import answering

OURS = importlib.metadata.version("ray")


@pytest.fixture
def serve():
    """Return a function that serves responses by path until the test ends, and returns the server's address."""
    with contextlib.ExitStack() as stack:
        yield lambda answers: stack.enter_context(answering(answers))


def test_an_address_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265/")
    assert (server_address(None), server_address("https://other")) == ("http://head:8265", "https://other")


def test_without_an_address_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="no cluster was given; use --address http://HOST:8265, or set RAY_API_SERVER"):
        server_address(None)


@each_case("address", ["10.0.0.1:6379", "ray://head:10001", "auto", "http://"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(ValueError, match=r"is not the address of a job server; use the address of Ray's dashboard"):
        server_address(address)


def test_an_address_with_a_password_is_refused_without_it():
    with pytest.raises(ValueError, match=r"^address http://head contains credentials, "):
        server_address("http://me:pass@head")


def test_our_version_is_accepted(serve):
    address = serve({"/api/version": (200, {"ray_version": OURS})})
    assert check_server(address) is None


def test_another_version_is_refused(serve):
    address = serve({"/api/version": (200, {"ray_version": "2.9.0"})})
    with pytest.raises(ValueError, match=rf"runs Ray 2.9.0, and this code needs Ray {OURS}; install ray=={OURS} there"):
        check_server(address)


@pytest.mark.parametrize(
    "answer",
    [
        (404, "nothing"),
        (200, b"<html>"),
        (200, {"version": 1}),
        (200, {"ray_version": None}),
        (200, {"ray_version": "2"}),
        (200, [1]),
        (500, ""),
    ],
)
def test_what_is_not_ray_is_refused(serve, answer):
    address = serve({"/api/version": answer})
    with pytest.raises(ValueError, match=r"what answers at .* is not Ray's job server; use the dashboard's address"):
        check_server(address)


def test_what_does_not_speak_http_is_no_ray():
    def speak():
        with server.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(b"\0\0\x12\4\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=speak, daemon=True).start()
        with pytest.raises(ValueError, match=r"what answers at .* is not Ray's job server"):
            check_server(f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("status", [401, 403])
def test_a_cluster_that_wants_a_token_is_named(serve, status, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    address = serve({"/api/version": (status, "no")})
    with pytest.raises(PermissionError, match="requires a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH"):
        check_server(address)


def test_with_a_token_it_is_left_to_rays_client(serve, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    address = serve({"/api/version": (401, "no")})
    assert check_server(address) is None


def test_an_address_that_does_not_answer_is_named():
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at http://127.0.0.1:9 \(.*refused\); start it"):
        check_server("http://127.0.0.1:9")


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(address, "_ANSWER_SECONDS", 0.1)
    timed_out = pytest.raises(ConnectionError, match=r"no Ray cluster answers at .*timed out")
    with socket.create_server(("127.0.0.1", 0)) as silent, timed_out:
        check_server(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_an_address_is_set_for_ray_alone_and_then_as_before(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://a")
    with address_set("http://b"):
        assert server_address(None) == "http://b"
    assert server_address(None) == "http://a"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    with address_set("http://b"):
        pass
    with pytest.raises(ValueError, match="no cluster was given"):
        server_address(None)
