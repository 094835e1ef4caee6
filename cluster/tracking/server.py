"""A request to the tracker's server that tells whether an MLflow answers there."""

import json
import logging
import re
import socket
import time
import urllib.parse
from typing import Any, NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from cluster.errors import Refusal, Unreachable, one_line
from cluster.tracking.access import INVALID_HOST

logger = logging.getLogger(__name__)

USABLE = "use http://HOST:PORT or sqlite:///FILE, or leave it out to use the embedded tracker"
"""What to do about an address that is none of a tracker."""
_ENDPOINT = "/api/2.0/mlflow/experiments/search"
_REFUSED_ENDPOINT = "/api/2.0/mlflow/experiments/get"  # without the id that it needs
_ANSWER_KEYS = {"experiments", "next_page_token"}
_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 10
_VERSION = re.compile(r"\d+(\.\w+){1,4}")
_ERROR_CODE = re.compile(r"[A-Z][A-Z_]+")
_FAILING = (500, 502, 503, 504)
_WAITS_SECONDS = (1, 2, 4, 8)  # between requests to a server that fails


class _Answer(NamedTuple):
    status: int
    title: str  # the status as text, and the name of the server's program
    text: str


def require_server(uri: str) -> None:
    """Check that an MLflow server answers at an address.

    A server that refuses this user passes: the first request that needs the user's permission says more.

    Raises:
        Unreachable: nothing answers, or a server that fails.
        Refusal: the address has no host or an impossible port, or what answers is not MLflow.
    """
    _require_connection(uri)
    answer = _ask_for_experiments(uri)
    for number, seconds in enumerate(_WAITS_SECONDS):
        if answer.status not in _FAILING:
            break
        if number == 0:
            logger.info("MLflow at %s answers %s; trying again for %d s", uri, answer.title, sum(_WAITS_SECONDS))
        time.sleep(seconds)
        answer = _ask_for_experiments(uri)
    if answer.status in _FAILING:
        raise Unreachable(
            f"MLflow at {uri} answers {answer.title}",
            "start the server behind this address, or correct --tracking.uri",
        )
    if INVALID_HOST in answer.text:
        host = urllib.parse.urlsplit(uri).netloc
        raise Refusal(
            f"MLflow at {uri} does not accept this name of its host ({answer.status} {INVALID_HOST})",
            f"start the server with --allowed-hosts {host}, or use a name that it accepts, such as localhost",
        )
    if not _is_from_mlflow(answer, uri):
        remedy = "check the address and the port; on macOS, port 5000 belongs to AirPlay"
        raise Refusal(f"what answers at {uri} is not MLflow ({answer.title})", remedy)


def server_version(uri: str) -> str | None:
    """Return the version of the MLflow server at an address; None if it does not say."""
    try:
        answer: Any = http_request(
            get_default_host_creds(uri), "/version", "GET", max_retries=0, timeout=_ANSWER_SECONDS
        )
    except MlflowException:
        return None
    text = f"{answer.text}".strip()
    return text if answer.status_code == 200 and _VERSION.fullmatch(text) else None


def _require_connection(uri: str) -> None:
    try:
        parts = urllib.parse.urlsplit(uri)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:  # of the port, or of a bracket without its partner
        raise Refusal(f"tracking address {uri} cannot be one ({error})", USABLE) from None
    if not host or " " in host:
        raise Refusal(f"tracking address {uri} {'has a space in its host' if host else 'has no host'}", USABLE)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:  # ValueError: a name that no host can have
        raise _no_answer(uri, one_line(error, with_kind=False)) from error


def _ask_for_experiments(uri: str) -> _Answer:
    return _ask(uri, _ENDPOINT, {"max_results": 1})


def _ask(uri: str, endpoint: str, parameters: dict[str, int]) -> _Answer:
    """Send a request with the credentials that MLflow's client would send."""
    try:
        answer: Any = http_request(
            get_default_host_creds(uri),
            endpoint,
            "GET",
            params=parameters,
            max_retries=0,
            timeout=_ANSWER_SECONDS,
            raise_on_status=False,
        )
    except MlflowException as error:
        # Not the text: it may contain the address with credentials.
        reason = type(error.__cause__ or error.__context__ or error).__name__
        raise _no_answer(uri, reason) from error
    server = answer.headers.get("server", "").strip()
    title = f"{answer.status_code} {answer.reason}" + (f", server {server}" if server else "")
    return _Answer(answer.status_code, title, answer.text)


def _no_answer(uri: str, reason: str) -> Unreachable:
    return Unreachable(f"MLflow at {uri} does not answer ({reason})", "start the server, or correct --tracking.uri")


def _is_from_mlflow(answer: _Answer, uri: str) -> bool:
    if answer.status in (401, 429):
        return True
    is_ok = answer.status == 200
    try:
        document = json.loads(answer.text or ("{}" if is_ok else ""))
    except ValueError:
        return answer.text.strip() == "Permission denied"  # of MLflow's basic authentication
    if not isinstance(document, dict):
        return False
    if not is_ok:
        return _is_refusal(answer.status, document)
    return document.keys() <= _ANSWER_KEYS and (_has_experiments(document) or _refuses_what_mlflow_refuses(uri))


def _is_refusal(status: int, document: dict[str, Any]) -> bool:
    """Return whether a document is a refusal as MLflow's client reads them: the code may be the answer's status."""
    code = str(document.get("error_code"))
    return bool(_ERROR_CODE.fullmatch(code)) or (code == str(status) and "message" in document)


def _has_experiments(document: dict[str, Any]) -> bool:
    found = document.get("experiments")
    return isinstance(found, list) and any(isinstance(one, dict) and "experiment_id" in one for one in found)


def _refuses_what_mlflow_refuses(uri: str) -> bool:
    """Ask for an experiment without its id, because no experiments may also be the answer of a server that says {}.

    A proxy may put a page of its own in place of MLflow's refusal, so the status decides.
    """
    return _ask(uri, _REFUSED_ENDPOINT, {}).status >= 400
