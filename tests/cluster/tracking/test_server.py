"""What answers at a tracker's address: MLflow, another program, or a server that fails."""

import logging

import pytest

from cluster.tracking.server import require_server
from tests.support.http_server import answering

ENDPOINT = "/api/2.0/mlflow/experiments/search?max_results=1"
REFUSED = "/api/2.0/mlflow/experiments/get"


@pytest.fixture(autouse=True)
def without_waits(monkeypatch):
    monkeypatch.setattr("cluster.tracking.server._WAITS_SECONDS", (0, 0))


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}),
        (200, {"experiments": [], "next_page_token": ""}),
        (200, {"experiments": [{"experiment_id": "0", "name": "Default"}], "next_page_token": "x"}),
        (401, b"You are not authenticated"),
        (403, b"Permission denied"),
        (403, {"error_code": "PERMISSION_DENIED"}),
        (403, {"error_code": 403, "message": "Invalid access token"}),
        (403, {"error_code": "403", "message": "Invalid access token"}),
        (429, b"later"),
    ],
    ids=str,
)
def test_mlflow_passes_whatever_it_says_to_this_user(answer):
    with answering({ENDPOINT: answer}) as address:
        require_server(address)


@pytest.mark.parametrize(
    "document", [{}, b"", {"experiments": []}, {"experiments": {}}, {"experiments": [{"name": "x"}]}, {"a": 1}], ids=str
)
def test_a_server_that_answers_the_same_to_everything_is_not_mlflow(document):
    with answering({ENDPOINT: (200, document), REFUSED: (200, document)}) as address:
        message = rf"what answers at {address} is not MLflow \(200 OK, server BaseHTTP.*; check the address"
        with pytest.raises(ValueError, match=message):
            require_server(address)


def test_a_path_before_the_api_is_kept():
    with answering({f"/mlflow{ENDPOINT}": (200, {})}) as address:
        require_server(f"{address}/mlflow/")


@pytest.mark.parametrize(
    "answer",
    [
        (403, b""),
        (200, b"<title>JupyterLab</title>"),
        (200, b"[]"),
        (200, {"jobs": 0}),
        (200, {"error_code": "OTHER"}),
        (404, {"message": "none"}),
        (404, {"error_code": 404}),
        (404, {"error_code": 403, "message": "none"}),
    ],
    ids=str,
)
def test_another_program_is_named_with_its_status(answer):
    with answering({ENDPOINT: answer}) as address:
        message = (
            rf"what answers at {address} is not MLflow \({answer[0]} .*, server BaseHTTP.*\); check the address and"
        )
        with pytest.raises(ValueError, match=message):
            require_server(address)


def test_a_name_of_the_server_that_mlflow_was_not_told_of_is_named_with_the_option():
    with answering({ENDPOINT: (403, b"Invalid Host header - possible DNS rebinding attack detected")}) as address:
        host = address.removeprefix("http://")
        with pytest.raises(ValueError, match=rf"does not accept this name of its host .*--allowed-hosts {host}, or"):
            require_server(address)


def test_a_server_that_fails_is_asked_again_with_a_line(log_lines, caplog):
    caplog.set_level(logging.INFO)
    with answering({ENDPOINT: (502, b"<html>Bad Gateway</html>")}) as address:
        with pytest.raises(ConnectionError, match=rf"MLflow at {address} answers 502 Bad Gateway.*; start the server"):
            require_server(address)
        (line,) = log_lines()
    assert line.startswith(f"MLflow at {address} answers 502 Bad Gateway, server BaseHTTP")


def test_a_server_that_works_again_passes():
    answers = [(503, b""), (200, {"experiments": [{"experiment_id": "0"}]})]

    class Recovering(dict):
        def get(self, key, default=None):
            return answers.pop(0)

    with answering(Recovering()) as address:
        require_server(address)
    assert answers == []


def test_a_server_that_speaks_something_else_does_not_answer(monkeypatch):
    monkeypatch.setattr("cluster.tracking.server._require_connection", lambda uri: None)
    with pytest.raises(ConnectionError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer \(\w+\); start the"):
        require_server("http://127.0.0.1:9")
