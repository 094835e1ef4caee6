"""Explanations of refused requests; ``integration/test_model_server`` covers the refusals of a real server."""

import pytest
from mlflow.exceptions import MlflowException, RestException
from requests import HTTPError, Response

from cluster.tracking.access import access_refusal


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
