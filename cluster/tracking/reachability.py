"""Whether an MLflow server answers at an address: asked before a job, with few tries and a line while it tries again.

MLflow's own client would try for minutes without a line, and would take any server for MLflow. Does not import MLflow.
"""

import http.client
import logging
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import NamedTuple

from cluster.config import without_credentials
from cluster.errors import Refusal, Unreachable
from cluster.tracking.access import NO_ANSWER_REMEDY

logger = logging.getLogger(__name__)

_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 10
_WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)
_PASSING = (0, 408, 429, 500, 502, 503, 504)  # the statuses after which MLflow's client tries again; 0 is silence
_NO_USER = 401
_REQUEST = "/api/2.0/mlflow/experiments/search?max_results=1"


class _Answer(NamedTuple):
    """Answer of a server to a request of MLflow's API.

    Attributes:
        status: HTTP status; 0 if there was no answer in time.
        text: status and reason, and the name of the server's program if it says so.
        is_of_mlflow: whether it is a JSON object, as all answers of the API, or asks for a user.
    """

    status: int
    text: str
    is_of_mlflow: bool


def require_answer(uri: str) -> None:
    """Wait until an MLflow server answers, while it answers with errors that may pass, such as those of a proxy.

    Args:
        uri: http or https address of the server.

    Raises:
        Unreachable: nothing answers, or the errors do not pass in time.
        Refusal: another server than MLflow answers.
    """
    shown = without_credentials(uri)
    _connect(uri, shown)
    answer = _ask(uri)
    for number, wait in enumerate(_WAITS_SECONDS):
        if answer is None or answer.status not in _PASSING:
            break
        if number == 0:
            logger.warning("MLflow at %s answers %s; trying again for %g s", shown, answer.text, sum(_WAITS_SECONDS))
        time.sleep(wait)
        answer = _ask(uri)
    if answer and answer.status in _PASSING:
        raise Unreachable(f"MLflow at {shown} answers {answer.text}", NO_ANSWER_REMEDY)
    if answer and not answer.is_of_mlflow:
        raise Refusal(
            f"what answers at {shown} is not MLflow ({answer.text})",
            "check host, port and path; on macOS, AirPlay answers at port 5000",
        )


def _connect(uri: str, shown: str) -> None:
    parts = urllib.parse.urlsplit(uri)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise Unreachable(f"MLflow at {shown} does not answer ({error})", NO_ANSWER_REMEDY) from error


def _ask(uri: str) -> _Answer | None:
    """Make a request without a user; return None if only MLflow's client can make it, such as with a certificate."""
    try:
        with urllib.request.urlopen(
            f"{without_credentials(uri).rstrip('/')}{_REQUEST}", timeout=_ANSWER_SECONDS
        ) as response:
            return _read(response.status, response.reason, response)
    except urllib.error.HTTPError as error:
        with error:
            return _read(error.code, error.reason, error)
    except TimeoutError:
        return _Answer(0, f"nothing within {_ANSWER_SECONDS} s", is_of_mlflow=False)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _read(status: int, reason: str, response: http.client.HTTPResponse | urllib.error.HTTPError) -> _Answer:
    server = response.headers.get("Server", "").strip()
    body = response.read(1024).lstrip()
    text = f"{status} {reason}{f', {server}' if server else ''}"
    return _Answer(status, text, is_of_mlflow=status == _NO_USER or body.startswith(b"{"))
