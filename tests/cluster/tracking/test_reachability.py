"""Servers that answer with errors, or are not MLflow; ``integration/test_model_server`` connects to a real one."""

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.resources.environment import set_library_defaults
from cluster.tracking import reachability
from cluster.tracking.access import unanswered_request
from cluster.tracking.reachability import require_answer
from tests.support.http_server import answering

FOUND, NONE = (200, {"experiments": []}), (502, b"<html>Bad Gateway</html>")


class Answers(dict):
    """Answers of a server to any request: those of a list one after the other, the last one for ever."""

    def __init__(self, *answers):
        super().__init__()
        self.left = list(answers)

    def get(self, path, default=None):
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(reachability, "_WAITS_SECONDS", (0.0, 0.0))


def test_a_proxy_without_a_server_behind_it_is_told_once(log_lines):
    told = r"^MLflow at http://\S+ answers 502 Bad Gateway, .*; start the server, or correct --tracking\.uri$"
    with answering(Answers(NONE)) as uri, pytest.raises(ConnectionError, match=told):
        require_answer(uri)
    assert [line.partition(" answers ")[2].startswith("502 Bad Gateway, ") for line in log_lines()] == [True]


@pytest.mark.parametrize(
    "answers",
    [(FOUND,), (NONE, FOUND), ((429, ""), (503, ""), FOUND), ((401, b"who are you?"),), ((403, {"error_code": "X"}),)],
    ids=["at once", "after an error", "after two", "with a user", "with another user"],
)
def test_a_server_that_answers_in_the_end_is_used(answers):
    with answering(Answers(*answers)) as uri:
        assert require_answer(uri) is None


@pytest.mark.parametrize(
    ("answer", "text"),
    [((403, b""), "403 Forbidden"), ((200, b"<html>"), "200 OK"), ((404, b"<html>"), "404 Not Found")],
)
def test_another_server_is_bad_input(answer, text):
    told = rf"^what answers at \S+ is not MLflow \({text}, .*\); check host, port and path"
    with answering(Answers(answer)) as uri, pytest.raises(ValueError, match=told):
        require_answer(uri)


def test_a_server_that_is_silent_is_told(monkeypatch):
    def silent(url, timeout):
        raise TimeoutError

    monkeypatch.setattr(reachability.urllib.request, "urlopen", silent)
    with answering({}) as uri, pytest.raises(ConnectionError, match=r"answers nothing within 10 s; start the server"):
        require_answer(uri)


def test_a_server_that_only_mlflows_client_can_ask_is_left_to_it(monkeypatch):
    def untrusted(url, timeout):
        raise OSError("certificate verify failed")

    monkeypatch.setattr(reachability.urllib.request, "urlopen", untrusted)
    with answering({}) as uri:
        assert require_answer(uri) is None


def test_a_request_that_fails_later_does_so_after_few_tries(monkeypatch):
    set_library_defaults()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    with answering(Answers(NONE)) as uri, pytest.raises(MlflowException) as refused:
        MlflowClient(uri).get_run("a" * 32)
    assert unanswered_request(refused.value) == (
        f"MLflow at {uri} does not answer (too many 502 error responses); start the server, or correct --tracking.uri"
    )
