import socket

import pytest

from cluster.errors import passing_fault
from jobs.console.ports import require_free_port
from tests.support.case_table import each_case


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_passes():
    require_free_port("127.0.0.1", 0)


@each_case(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "there is no port 70000; choose a --port from 1 to 65535"),
        ("no.such.host.invalid", 5000, r"host no\.such\.host\.invalid is not an address of this machine .*--host"),
        ("192.0.2.1", 5000, r"port 5000 of 192\.0\.2\.1 cannot be used .*; choose another --port"),
    ],
)
def test_a_port_that_no_server_can_have_is_refused(host, port, message):
    with pytest.raises(ValueError, match=message):
        require_free_port(host, port)


@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_FAIL])
def test_a_name_that_cannot_be_looked_up_at_present_may_pass(code, monkeypatch):
    def fail(*_):
        raise socket.gaierror(code, "No answer")

    monkeypatch.setattr(socket, "getaddrinfo", fail)  # a name server without answer needs a network
    with pytest.raises(ConnectionError, match=r"host h cannot be looked up \(No answer\); run the") as raised:
        require_free_port("h", 5000)
    assert passing_fault(raised.value) == str(raised.value)


def test_a_taken_port_is_named(taken):
    with pytest.raises(ValueError, match=rf"port {taken} of 127\.0\.0\.1 cannot be used \(Address already in use\)"):
        require_free_port("127.0.0.1", taken)
