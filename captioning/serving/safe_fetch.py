"""Fetching what a stranger names by a URL: only from addresses that are allowed, within a size and a time."""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
# Stand for an IPv4 address, which a router may reach: mapped, NAT64 (RFC 6052 and 8215), Teredo, 6to4.
_EMBEDDING = tuple(
    map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"))
)


def is_public(address: Address) -> bool:
    """Return whether an address is the internet's, and neither this machine's nor a network's own."""
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _EMBEDDING):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def fetch(
    url: str, *, max_bytes: int, seconds: float = 10, is_allowed: Callable[[Address], bool] | None = is_public
) -> bytes:
    """Fetch a URL; neither proxies nor credentials of this machine are used.

    Args:
        url: http or https.
        max_bytes: of the answer.
        seconds: for all of it, redirects included; looking a host up may take longer.
        is_allowed: whether to connect to an address; asked for every one of the host's, again at each redirect, and
            the connection goes to an address that was asked about. None allows all.

    Raises:
        ValueError: the URL is none to fetch, or the answer is no success or too large.
        OSError: nothing answers, or not in time.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_MAX_REDIRECTS + 1):
        parts = _split(url)
        try:
            with _connection(parts, deadline, is_allowed) as connection:
                answer = _ask(connection, parts)
                if answer.status not in _REDIRECTS:
                    content = _read(answer, max_bytes)
                    _require_time(deadline)
                    return content
                url = urllib.parse.urljoin(url, answer.headers.get("Location", ""))
        except (http.client.HTTPException, OSError) as error:
            _require_time(deadline)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OSError(f"the URL does not answer ({reason}); check it") from None
    raise ValueError(f"the URL leads on more than {_MAX_REDIRECTS} times; give the last one")


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        is_one = (
            parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0 and url.isascii() and " " not in url
        )
    except ValueError:
        is_one = False
        parts = urllib.parse.SplitResult("", "", "", "", "")
    if not is_one or parts.username is not None:
        raise ValueError("the URL is none to fetch; give http://HOST/... or https://HOST/... without a password")
    return parts


@contextlib.contextmanager
def _connection(
    parts: urllib.parse.SplitResult, deadline: float, is_allowed: Callable[[Address], bool] | None
) -> Iterator[http.client.HTTPConnection]:
    """Connect to one of the host's addresses; at the deadline, the connection ends."""
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if is_allowed and not all(is_allowed(ipaddress.ip_address(address)) for address in found):
        raise ValueError("the URL's host is at an address that is not allowed; give a public one")
    plain = _connected(found, port, deadline)
    with plain.dup() as handle, contextlib.ExitStack() as stack:
        # Time-outs of sockets are for each piece: who sends a byte now and then would keep us for ever.
        timer = threading.Timer(max(0, deadline - time.monotonic()), lambda: _end(handle))
        timer.start()
        stack.callback(timer.cancel)
        stack.callback(plain.close)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = plain
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        stack.callback(connection.close)
        yield connection


def _connected(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    """Connect to the first address that answers."""
    for number, address in enumerate(addresses, start=1):
        try:
            return socket.create_connection((address, port), timeout=max(0.1, deadline - time.monotonic()))
        except OSError:
            if number == len(addresses) or time.monotonic() >= deadline:
                raise
    raise OSError("the host has no address")


def _end(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        handle.shutdown(socket.SHUT_RDWR)


def _ask(connection: http.client.HTTPConnection, parts: urllib.parse.SplitResult) -> http.client.HTTPResponse:
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    headers = {"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "captioning"}
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


def _read(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if answer.status != http.client.OK:
        raise ValueError(f"the URL answers {answer.status}; give an image's")
    if (answer.length or 0) > max_bytes or len(content := answer.read(max_bytes + 1)) > max_bytes:
        raise ValueError(f"the URL has more than the {max_bytes >> 20} MiB allowed; give a smaller image's")
    return content


def _require_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError("the URL does not answer in time; try it again") from None
