"""Download of a URL from an untrusted request: only from allowed addresses, with limits on size and time."""

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
# Only IPv6's range for global unicast, and of it and of IPv4 none of the special-purpose ranges, which IANA lists
# (https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-special-registry): private networks, this host,
# documentation, benchmarks, and those from which a router may reach an embedded IPv4 address (Teredo, 6to4).
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
            "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
            "168.63.129.16/32",  # not of that list: the host of virtual machines on Azure
        ),
    )
)  # fmt: skip


def is_public(address: Address) -> bool:
    """Return whether an address is on the public internet, not on this machine or a private network."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _SPECIAL)


def fetch(
    url: str, *, max_bytes: int, seconds: float = 10, is_allowed: Callable[[Address], bool] | None = is_public
) -> bytes:
    """Download a URL, without the proxies and credentials of this machine.

    All addresses of the host must be allowed, again at each redirect. The connection goes to a checked address, because
    a second look-up of the name could return another one.

    Args:
        url: http or https URL.
        max_bytes: largest size of the response.
        seconds: limit on the total time, redirects included; looking up a host name may take longer.
        is_allowed: function that returns whether a connection to an address is allowed; None allows all.

    Raises:
        ValueError: the URL is not http or https or has credentials, an address of its host is not allowed, or the
            response is not a success or too large.
        OSError: the host does not respond, or not in time.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_MAX_REDIRECTS + 1):
        parts = _split(url)
        try:
            with _connection(parts, deadline, is_allowed) as connection:
                response = _request(connection, parts)
                if response.status not in _REDIRECTS:
                    content = _read(response, max_bytes)
                    _require_time(deadline)
                    return content
                url = urllib.parse.urljoin(url, response.headers.get("Location", ""))
        except (http.client.HTTPException, OSError) as error:
            _require_time(deadline)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OSError(f"the URL cannot be downloaded ({reason}); check it") from None
    raise ValueError(f"the URL redirects more than {_MAX_REDIRECTS} times; give the final URL")


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        is_valid = (
            parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0 and url.isascii() and " " not in url
        )
    except ValueError:
        is_valid = False
        parts = urllib.parse.SplitResult("", "", "", "", "")
    if not is_valid or parts.username is not None:
        raise ValueError(
            "the URL is not a valid web address; give http://HOST/... or https://HOST/... without a password"
        )
    return parts


@contextlib.contextmanager
def _connection(
    parts: urllib.parse.SplitResult, deadline: float, is_allowed: Callable[[Address], bool] | None
) -> Iterator[http.client.HTTPConnection]:
    """Connect to one of the host's addresses, and shut the connection down at the deadline."""
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if is_allowed and not all(is_allowed(ipaddress.ip_address(address)) for address in found):
        raise ValueError("the URL's host has an address that is not allowed; give a public host")
    plain = _open_socket(found, port, deadline)
    with plain.dup() as handle, contextlib.ExitStack() as stack:
        # A socket's timeout applies to each read, so a host that sends single bytes could keep the connection open.
        timer = threading.Timer(max(0, deadline - time.monotonic()), lambda: _shut_down(handle))
        timer.start()
        stack.callback(timer.cancel)
        stack.callback(plain.close)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = plain
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        stack.callback(connection.close)
        yield connection


def _open_socket(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    """Connect to the first address that accepts a connection."""
    for number, address in enumerate(addresses, start=1):
        try:
            return socket.create_connection((address, port), timeout=max(0.1, deadline - time.monotonic()))
        except OSError:
            if number == len(addresses) or time.monotonic() >= deadline:
                raise
    raise OSError("the host has no address")


def _shut_down(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already closed
        handle.shutdown(socket.SHUT_RDWR)


def _request(connection: http.client.HTTPConnection, parts: urllib.parse.SplitResult) -> http.client.HTTPResponse:
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    headers = {"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "captioning"}
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if response.status != http.client.OK:
        raise ValueError(f"the URL returns status {response.status}; give the URL of an image")
    if (response.length or 0) > max_bytes or len(content := response.read(max_bytes + 1)) > max_bytes:
        raise ValueError(
            f"the image at the URL is larger than the allowed {max_bytes >> 20} MiB; give the URL of a smaller image"
        )
    return content


def _require_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError("the URL does not respond in time; try again") from None
