"""The tracker's side of an error: refused requests, no answer, or one that is not MLflow's. Does not import MLflow."""

import logging
import os
import re
from typing import NamedTuple

from cluster.errors import causes, one_line, shorten

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
NO_ANSWER_REMEDY = "start the server, or correct --tracking.uri"
INVALID_HOST = "Invalid Host header"
"""Beginning of MLflow's answer to a request that names the server in a way that it was not told of."""
ALLOW_HOST = "start the server with this host and port in --allowed-hosts"
_UNKNOWN, _FORBIDDEN = 401, 403
_NO_ANSWER = re.compile(
    r"API request to (?P<address>https?://[^/\s]+)\S* failed with (timeout )?exception (?P<reason>.*)", re.DOTALL
)
# The part of urllib3's texts that names the cause.
_REASON = re.compile(
    r"too many \d+ error responses|timed out|Connection refused|Name or service not known|No route to host|"
    r"Remote end closed connection|Connection reset by peer"
)
_RETRYING = "Retrying ("  # beginning of urllib3's warning, whose values are what it will try, the error, and the path
_APIS = ("/api/2.0/mlflow", "/api/3.0/mlflow")

_OWN = ("builtins", "captioning", "cluster", "jobs", "shards")
_ABOUT_THE_REQUEST = (
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "FEATURE_DISABLED",
)
_OF_A_DATABASE = re.compile(r"\(\w+\.(\w+\.)*\w*Error\)")  # as SQLAlchemy names the error of a database's driver
_NO_JSON = re.compile(r"response body was not in a valid JSON format\. Response body: '(?P<body>.*)'")
_NO_API = re.compile(
    r"request to endpoint (?P<endpoint>\S+) failed with error code (?P<status>\d+) != \d+\. "
    r"Response body: '(?P<body>.*)'"
)
_DELETED = re.compile(r"The (?P<kind>run|experiment) (?P<id>\w+) must be in the 'active' state")


def access_refusal(error: BaseException) -> str | None:
    """Return what was refused and what to do, if a tracker refused a request with 401 or 403; None otherwise.

    Args:
        error: any error; its causes and contexts are searched as well.
    """
    refused = ((status, one) for one in causes(error) if (status := _status(one)) in (_UNKNOWN, _FORBIDDEN))
    return next((_explain(status, str(one)) for status, one in refused), None)


def unanswered_request(error: BaseException) -> str | None:
    """Return which tracker did not answer and what to do, if one failed to answer a request; None otherwise.

    Args:
        error: any error; its causes and contexts are searched as well.
    """
    for one in causes(error):
        if type(one).__module__ == "mlflow.exceptions" and (found := _NO_ANSWER.match(str(one))):
            reason = _REASON.search(found["reason"])
            why = reason[0] if reason else " ".join(found["reason"].split())
            return f"MLflow at {found['address']} does not answer ({why}); {NO_ANSWER_REMEDY}"
    return None


class RetryWarnings(logging.Filter):
    """Filter of the log of MLflow's HTTP library: its request that is tried again is told in words of this project."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, having put the cause of a retry of MLflow's request in place of the library's own objects."""
        if str(record.msg).startswith(_RETRYING) and any(api in str(one) for one in record.args or () for api in _APIS):
            reason = _REASON.search(record.getMessage())
            record.msg = "the tracker does not answer (%s); trying again"
            record.args = (reason[0] if reason else "the connection is broken",)
        return True


_RETRY_WARNINGS = RetryWarnings()


def explain_retries() -> None:
    """Log a request to the tracker that is tried again as one plain line."""
    logging.getLogger("urllib3.connectionpool").addFilter(_RETRY_WARNINGS)  # the same filter is added once


class TrackerFault(NamedTuple):
    """What the tracker's side answered, and whether it may answer otherwise later."""

    line: str
    may_pass: bool


def tracker_fault(error: BaseException) -> TrackerFault | None:
    """Return what went wrong on the tracker's side, on one line with what to do; None if the error is not of MLflow.

    Args:
        error: any error; its causes and contexts are searched as well, unless this project has raised it.
    """
    if unanswered := unanswered_request(error):
        return TrackerFault(unanswered, may_pass=True)
    if type(error).__module__.partition(".")[0] in _OWN:
        return None
    for one in causes(error):
        module = type(one).__module__
        if module.startswith("sqlalchemy.") or (module == "mlflow.exceptions" and _OF_A_DATABASE.search(str(one))):
            return _database_fault(str(one))
        if module == "mlflow.exceptions":
            return _answer_fault(one)
    return None


def tracker_line(error: BaseException) -> str:
    """Return an error of a request to the tracker on one line, for a warning."""
    fault = tracker_fault(error)
    return access_refusal(error) or (fault.line if fault else one_line(error, with_kind=False))


def is_about_the_request(error: BaseException) -> bool:
    """Return whether MLflow has understood a request and knows no such thing; otherwise the tracker has failed."""
    return getattr(error, "error_code", None) in _ABOUT_THE_REQUEST and not _NO_API.search(str(error))


def restore_remedy(kind: str, identifier: str) -> str:
    """Return what to do about a deleted run or experiment."""
    return f"restore it with mlflow {kind}s restore --{kind}-id {identifier}"


def _database_fault(text: str) -> TrackerFault:
    found = one_line(text.partition("[SQL")[0].partition("(Background on")[0])
    if "database is locked" in text:
        return TrackerFault(
            f"the tracker's database is locked by another process ({found}); "
            "end the program that holds it, then run the same command again",
            may_pass=True,
        )
    return TrackerFault(f"the tracker's database fails ({found}); check it and its disk", may_pass=True)


def _answer_fault(error: BaseException) -> TrackerFault:
    text = one_line(error, with_kind=False)
    if found := _NO_JSON.search(text):
        return TrackerFault(
            f"the tracker's answer is not MLflow's ({shorten(found['body'], 100)}); a proxy or a login page may stand "
            "before it, or it was cut off: open the address in a browser, or correct --tracking.uri",
            may_pass=True,
        )
    if found := _NO_API.search(text):
        status = int(found["status"])
        what = f"the tracker answers {status} to {found['endpoint']} ({shorten(found['body'], 100)})"
        if status >= 500:
            return TrackerFault(f"{what}; its log says why", may_pass=True)
        return TrackerFault(f"{what}; it is no MLflow, or another version: correct --tracking.uri", may_pass=False)
    if found := _DELETED.search(text):
        kind, name = found["kind"], found["id"]
        return TrackerFault(f"{kind} {name} was deleted in MLflow; {restore_remedy(kind, name)}", may_pass=False)
    code = getattr(error, "error_code", "")
    return TrackerFault(f"MLflow answers {code}: {text}", may_pass=code not in _ABOUT_THE_REQUEST)


def _status(error: BaseException) -> int | None:
    if type(error).__module__ == "mlflow.exceptions":
        return getattr(error, "get_http_status_code", lambda: None)()
    # MLflow transfers artifacts with requests, and does not wrap its errors.
    is_ours = type(error).__module__ == "requests.exceptions" and "/mlflow" in str(error)
    return getattr(getattr(error, "response", None), "status_code", None) if is_ours else None


def _explain(status: int, text: str) -> str:
    if INVALID_HOST in text:
        return f"MLflow does not accept the server's name in this address ({status} {INVALID_HOST}); {ALLOW_HOST}"
    user = os.environ.get(USER)
    if status == _UNKNOWN:
        who = f"user {user} with this password" if user else "requests without a user"
        return f"MLflow refuses {who} (401); set {USER} and {PASSWORD} to the credentials of a user of the server"
    asked = re.search(r"/mlflow[-a-z]*/([-a-z/]+)", text)
    what = f" {asked[1]}" if asked else ""
    return (
        f"MLflow forbids user {user or 'unknown'} this request{what} (403); ask its administrator for the permission, "
        f"or set {USER} and {PASSWORD} to another user's"
    )
