"""Access to a tracker with authentication: explains refused requests. Does not import MLflow."""

import os
import re

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_UNKNOWN, _FORBIDDEN = 401, 403


def access_refusal(error: BaseException) -> str | None:
    """Return what was refused and what to do, if a tracker refused a request with 401 or 403; None otherwise.

    Args:
        error: any error; its causes and contexts are searched as well.
    """
    found: BaseException | None = error
    while found:
        if (status := _status(found)) in (_UNKNOWN, _FORBIDDEN):
            return _explain(status, str(found))
        found = found.__cause__ or found.__context__
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
