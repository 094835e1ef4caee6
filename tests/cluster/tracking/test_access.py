"""Explanations of refused requests; ``integration/test_model_server`` covers the refusals of a real server."""

import logging
import sqlite3

import pytest
from mlflow.exceptions import MlflowException, RestException, get_error_code
from requests import HTTPError, Response
from sqlalchemy.exc import OperationalError

from cluster.tracking.access import (
    access_refusal,
    explain_retries,
    is_about_the_request,
    tracker_fault,
    unanswered_request,
)


@pytest.fixture(autouse=True)
def user(monkeypatch):
    """Unset the user, and return a function that sets one."""
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    return lambda name: monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)


def rest_error(code):
    return RestException({"error_code": code, "message": "/api/2.0/mlflow/runs/create"})


def file_error(status, url):
    response = Response()
    response.status_code = status
    return HTTPError(f"{status} for url: {url}", response=response)


def test_requests_without_a_user_are_told(user):
    told = access_refusal(rest_error("UNAUTHENTICATED"))
    assert told == (
        "MLflow refuses requests without a user (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to "
        "the credentials of a user of the server"
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            "ReadTimeoutError(\"HTTPConnectionPool(host='h', port=5000): Read timed out. (read timeout=30)\")",
            "timed out",
        ),
        ("RemoteDisconnected('Remote end closed connection without response')", "Remote end closed connection"),
        ("Strange()", "the connection is broken"),
    ],
)
def test_a_request_that_is_tried_again_is_told_in_plain_words(error, reason, caplog):
    explain_retries()
    log = logging.getLogger("urllib3.connectionpool")
    log.warning("Retrying (%r) after connection broken by '%r': %s", "Retry(total=2)", error, "/api/2.0/mlflow/runs")
    log.warning("another line %s", "of it")
    log.warning("Retrying (%r) after connection broken by '%r': %s", "Retry(total=2)", "E()", "/bucket/file")
    assert caplog.messages == [
        f"the tracker does not answer ({reason}); trying again",
        "another line of it",
        "Retrying ('Retry(total=2)') after connection broken by ''E()'': /bucket/file",
    ]


def test_a_user_with_another_password_is_named(user):
    user("me")
    assert "refuses user me with this password (401)" in str(access_refusal(rest_error("UNAUTHENTICATED")))


def test_a_request_that_is_forbidden_is_named(user):
    user("me")
    told = access_refusal(rest_error("PERMISSION_DENIED"))
    assert "forbids user me this request runs/create (403); ask its administrator" in str(told)


def test_the_refusal_of_a_file_counts(user):
    assert "(403)" in str(access_refusal(file_error(403, "http://h/api/2.0/mlflow-artifacts/artifacts/a")))


def test_an_error_that_a_refusal_caused_counts(user):
    error = RuntimeError("x")
    error.__cause__ = rest_error("PERMISSION_DENIED")
    assert "(403)" in str(access_refusal(error))


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), MlflowException("x"), rest_error("RESOURCE_DOES_NOT_EXIST"), file_error(403, "http://h/file")],
    ids=["any", "of MLflow", "not found", "another server"],
)
def test_other_errors_are_left_to_themselves(error):
    assert access_refusal(error) is None


MLFLOWS_TEXT = (
    "API request to http://h:5000/api/2.0/mlflow/runs/get failed with exception HTTPConnectionPool(host='h', port=1): "
    "Max retries exceeded with url: /api/2.0/mlflow/runs/get (Caused by ResponseError('too many 502 error responses'))"
)


def test_a_tracker_that_does_not_answer_is_named():
    error = ValueError("no such model")
    error.__context__ = MlflowException(MLFLOWS_TEXT)
    assert unanswered_request(error) == (
        "MLflow at http://h:5000 does not answer (too many 502 error responses); start the server, or correct "
        "--tracking.uri"
    )


@pytest.mark.parametrize(
    "error", [ValueError(MLFLOWS_TEXT), MlflowException("x"), rest_error("RESOURCE_DOES_NOT_EXIST")]
)
def test_an_answer_is_no_silence(error):
    assert unanswered_request(error) is None


def failed_with(status, body):
    endpoint = "/api/2.0/mlflow/runs/get"
    text = f"API request to endpoint {endpoint} failed with error code {status} != 200. Response body: '{body}'"
    return MlflowException(text, error_code=get_error_code(status))


NO_JSON = "API request to endpoint was successful but the response body was not in a valid JSON format. Response body: "
LOCKED = "(sqlite3.OperationalError) database is locked\n[SQL: INSERT INTO metrics]\n(Background on this error at: https://x)"
INVALID_HOST = "Invalid Host header - possible DNS rebinding attack detected"


@pytest.mark.parametrize(
    ("error", "may_pass", "line"),
    [
        (MlflowException(f"{NO_JSON}'<html>\nLog in</html>'"), True, "answer is not MLflow's (<html> Log in</html>)"),
        (MlflowException(f"{NO_JSON}'{{\"runs\": ['"), True, "or it was cut off"),
        (failed_with(404, "<h1>Not Found</h1>"), False, "answers 404 to /api/2.0/mlflow/runs/get (<h1>Not Found</h1>)"),
        (failed_with(500, "Oops"), True, "answers 500 to /api/2.0/mlflow/runs/get (Oops); its log says why"),
        (MlflowException(LOCKED), True, "is locked by another process ((sqlite3.OperationalError) database is locked)"),
        (OperationalError("SELECT 1", {}, sqlite3.OperationalError("disk I/O error")), True, "database fails ("),
        (MlflowException("(psycopg2.OperationalError) server closed"), True, "the tracker's database fails ("),
        (MlflowException("The run abc must be in the 'active' state. Current"), False, "runs restore --run-id abc"),
        (rest_error("RESOURCE_DOES_NOT_EXIST"), False, "MLflow answers RESOURCE_DOES_NOT_EXIST: "),
        (rest_error("INTERNAL_ERROR"), True, "MLflow answers INTERNAL_ERROR: "),
        (MlflowException(MLFLOWS_TEXT), True, "does not answer"),
    ],
)
def test_an_answer_of_the_trackers_side_is_one_line_and_may_pass_or_not(error, may_pass, line):
    fault = tracker_fault(error)
    assert fault is not None
    assert (fault.may_pass, line in fault.line, "\n" in fault.line) == (may_pass, True, False), fault.line


def test_what_this_project_has_said_of_an_answer_is_left_as_it_is():
    error = ValueError("no such model")
    error.__context__ = rest_error("RESOURCE_DOES_NOT_EXIST")
    assert tracker_fault(error) is None


def test_a_host_that_mlflow_was_not_told_of_is_no_matter_of_permission():
    assert "start the server with this host and port in --allowed-hosts" in str(
        access_refusal(failed_with(403, INVALID_HOST))
    )


@pytest.mark.parametrize(
    ("error", "is_known"),
    [
        (rest_error("RESOURCE_DOES_NOT_EXIST"), True),
        (rest_error("INVALID_PARAMETER_VALUE"), True),
        (rest_error("INTERNAL_ERROR"), False),
        (failed_with(404, "<h1>Not Found</h1>"), False),
        (MlflowException(MLFLOWS_TEXT), False),
    ],
)
def test_only_an_answer_about_the_request_says_that_something_is_absent(error, is_known):
    assert is_about_the_request(error) is is_known
