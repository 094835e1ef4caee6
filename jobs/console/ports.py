"""Ports that a server is about to listen on, checked before a process becomes that server."""

import os
import socket

from cluster.errors import Refusal, Unreachable, one_line
from cluster.system_errors import is_unknown_host

_LAST_PORT = 65535


def require_free_port(host: str, port: int) -> None:
    """Check that a server can listen on a port of this machine.

    Args:
        host: name or address of this machine to listen on.
        port: number of the port.

    Raises:
        Refusal: another program listens there, this user may not, or there is no such port or address.
        Unreachable: the name of the host cannot be looked up at present.
    """
    if not 0 <= port <= _LAST_PORT:
        raise Refusal(f"there is no port {port}", f"choose a --port from 1 to {_LAST_PORT}")
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        reason = one_line(error, with_kind=False)
        if isinstance(error, OSError) and not is_unknown_host(error):
            remedy = "run the same command again once names can be looked up, or give --host as an address"
            raise Unreachable(f"host {host} cannot be looked up ({reason})", remedy) from error
        raise Refusal(f"host {host} is not an address of this machine ({reason})", "correct --host") from None
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)  # Python's own text adds the address
        raise Refusal(f"port {port} of {host} cannot be used ({why})", "choose another --port") from None
