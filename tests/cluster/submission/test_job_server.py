"""Errors of the job server; a small HTTP server produces them on demand, which a real cluster cannot."""

import importlib.metadata
from types import SimpleNamespace

import pytest
import requests

from cluster.resources.environment import set_library_defaults
from cluster.submission import job_server
from cluster.submission.job_server import JobServer, _Lines
from cluster.submission.submit import submit
from tests.support.http_server import answering

set_library_defaults()
ANSWERS = {"/api/version": (200, {"ray_version": importlib.metadata.version("ray")})}


@pytest.fixture
def gone():
    """Return the client of a job server that has stopped."""
    with answering(ANSWERS) as address:
        return JobServer(address)


def test_a_refused_token_is_told():
    with answering({**ANSWERS, "/api/jobs/": (403, "no")}) as address:
        server = JobServer(address)
        with pytest.raises(PermissionError, match="requires a token; set RAY_AUTH_MODE=token"):
            server.jobs()


@pytest.mark.parametrize("document", [{}, b"<html>log in</html>"], ids=str)
def test_an_answer_that_is_not_rays_is_told(document):
    with answering({**ANSWERS, "/api/jobs/a-1": (200, document)}) as address:
        server = JobServer(address)
        with pytest.raises(
            ValueError, match=rf"what answers at {address} is not Ray's job server; use the dashboard's"
        ):
            server.job("a-1")


def test_a_cluster_that_is_gone_is_told(gone):
    with pytest.raises(ConnectionError, match=r"the cluster at .* does not answer \(ConnectionError\); check that it"):
        gone.jobs()


def test_a_log_is_not_followed_for_ever_when_the_cluster_is_gone(gone, monkeypatch):
    monkeypatch.setattr(job_server, "_AWAY_SECONDS", 0.0)
    with pytest.raises(
        ConnectionError, match=r"no longer answers, and job a-1 may still run; try again with .* logs a-1 --foll"
    ):
        gone.follow("a-1", lambda line: None)


def test_a_dashboard_that_is_silent_is_not_waited_for(monkeypatch):
    asked = []

    def request(method, url, *, timeout=None, **others):
        asked.append(timeout)
        raise requests.Timeout("no answer")

    with answering(ANSWERS) as address:
        server = JobServer(address)
    monkeypatch.setattr(requests, "request", request)
    for ask in (server.jobs, lambda: server.log("a-1"), lambda: server.stop("a-1")):
        with pytest.raises(ConnectionError, match=r"does not answer \(Timeout\)"):
            ask()
    assert asked == [job_server._ANSWER_SECONDS] * 3


def test_a_job_that_does_not_stop_is_told(gone, monkeypatch):
    monkeypatch.setattr(job_server, "_STOP_SECONDS", -1.0)
    monkeypatch.setattr(gone, "_client", SimpleNamespace(stop_job=lambda job_id: None))
    monkeypatch.setattr(gone, "job", lambda job_id: SimpleNamespace(is_over=False))
    with pytest.raises(
        TimeoutError, match=r"job a-1 has not ended -1 s after it was told to stop; its node may be gone"
    ):
        gone.stop("a-1")


def test_a_line_is_shown_once_and_whole_however_often_the_connection_breaks():
    shown = []
    lines = _Lines(shown.append)
    for pieces in (["a\nb", "b\nc"], ["a\n", "bb\ncc\n", "d"]):
        lines.begin()
        for piece in pieces:
            lines.add(piece)
    lines.end()
    assert shown == ["a", "bb", "cc", "d"]


def test_ids_that_are_taken_again_and_again_are_told(tmp_path):
    archive = SimpleNamespace(files=(), folder=tmp_path)
    request = SimpleNamespace(
        name="big", archive=archive, runtime_env={"env_vars": {}}, entrypoint="", metadata={}, num_gpus=0
    )
    server = SimpleNamespace(jobs=list, submit=lambda *_, **__: False)
    with pytest.raises(
        RuntimeError, match="other clients are submitting big at the same time; run the same command again"
    ):
        submit(server, request)
