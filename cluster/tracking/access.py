"""Access to a tracker: explains requests that it refused or did not answer. Does not import MLflow."""

import os
import re

from cluster.errors import causes

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
NO_ANSWER_REMEDY = "start the server, or correct --tracking.uri"
_UNKNOWN, _FORBIDDEN = 401, 403
_NO_ANSWER = re.compile(
    r"API request to (?P<address>https?://[^/\s]+)\S* failed with (timeout )?exception (?P<reason>.*)", re.DOTALL
)
# The part of urllib3's texts that names the cause.
_REASON = re.compile(
    r"too many \d+ error responses|timed out|Connection refused|Name or service not known|No route to host"
)


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


def _status(error: BaseException) -> int | None:
    if type(error).__module__ == "mlflow.exceptions":
        return getattr(error, "get_http_status_code", lambda: None)()
    # MLflow transfers artifacts with requests, and does not wrap its errors.
    is_ours = type(error).__module__ == "requests.exceptions" and "/mlflow" in str(error)
    return getattr(getattr(error, "response", None), "status_code", None) if is_ours else None


def _explain(status: int, text: str) -> str:
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
