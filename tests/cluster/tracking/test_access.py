"""Explanations of refused requests; ``integration/test_model_server`` covers the refusals of a real server."""

import pytest
from mlflow.exceptions import MlflowException, RestException
from requests import HTTPError, Response

from cluster.tracking.access import access_refusal, unanswered_request


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
