"""The address of Ray's job server: its form, and a check that Ray answers there. Does not import Ray."""

import contextlib
import http.client
import importlib.metadata
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

from cluster.errors import one_line
from shards.storage.location import refuse_credentials

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
_ANSWER_SECONDS = 5


def server_address(address: str | None) -> str:
    """Return the address of a job server, from RAY_API_SERVER_ADDRESS if none is given.

    Raises:
        ValueError: no address was given, or it is not an HTTP address, or it contains credentials.
    """
    address = address or os.environ.get(ADDRESS_VARIABLE)
    if not address:
        raise ValueError(f"no cluster was given; use --address http://HOST:8265, or set {ADDRESS_VARIABLE}")
    refuse_credentials(address, "address")
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{address} is not the address of a job server; use the address of Ray's dashboard, http://HOST:8265"
        )
    return address.rstrip("/")


def check_server(address: str) -> None:
    """Check that Ray of this version answers; Ray's own client would wait forever for a server that never responds.

    Raises:
        ConnectionError: nothing answers.
        ValueError: what answers is not Ray, or another version of it.
        PermissionError: the cluster requires a token, and none is configured here.
    """
    request = urllib.request.Request(f"{address}/api/version", headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
            major, minor, *_ = (version := json.loads(answer.read())["ray_version"]).split(".")
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise not_ray(address) from error
        if os.environ.get("RAY_AUTH_MODE") != "token":
            raise no_token(address) from None
        return  # Ray's own client sends the token
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        reason = getattr(error, "reason", error)  # of urllib's own error, which is text or an error again
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({one_line(reason, with_kind=False)}); start it, or correct --address"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException) as error:
        raise not_ray(address) from error
    ours = importlib.metadata.version("ray")
    if [major, minor] != ours.split(".")[:2]:
        raise ValueError(
            f"the cluster at {address} runs Ray {version}, and this code needs Ray {ours}; "
            f"install ray=={ours} there, or a version of captioning for Ray {version} here"
        )


def not_ray(address: str) -> ValueError:
    """Return the error for a server whose answer is not that of Ray's job server."""
    return ValueError(
        f"what answers at {address} is not Ray's job server; use the dashboard's address (port 8265 by default)"
    )


def no_token(address: str) -> PermissionError:
    """Return the error for a cluster that rejects a request without the right token."""
    return PermissionError(
        f"the cluster at {address} requires a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to its file"
    )


@contextlib.contextmanager
def address_set(address: str) -> Iterator[None]:
    """Set RAY_API_SERVER_ADDRESS during the block, because Ray's client prefers it to its own argument."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS_VARIABLE]
        else:
            os.environ[ADDRESS_VARIABLE] = before
