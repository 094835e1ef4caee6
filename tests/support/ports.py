"""Ports for servers that tests start."""

import random
import socket

# Below Linux' ephemeral ports (32768-60999), one of which any process's next connection may take before a server that
# starts slowly binds it, and above those that Ray gives to its workers (10002-19999).
_RANGE = range(20_000, 32_768)


def free_port():
    """Return a port of this machine on which nothing listens."""
    for port in random.SystemRandom().sample(_RANGE, 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise OSError("100 ports of 100 are taken")
