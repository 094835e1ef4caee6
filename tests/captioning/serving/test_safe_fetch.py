import ipaddress
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from captioning.serving.safe_fetch import fetch, is_public
from tests.support.case_table import each_case

LOOPBACK = ipaddress.ip_address("127.0.0.1")
SEEN = []


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        SEEN.append((self.path, dict(self.headers)))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response({"/gone": 404}.get(self.path, 200))
        if self.path == "/honest":
            self.send_header("Content-Length", "1000000")
        self.end_headers()
        if self.path == "/slow":
            for _ in range(40):
                self.wfile.write(b".")
                time.sleep(0.05)
        self.wfile.write(b"x" * (2000 if self.path == "/large" else 10))

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def get(url, **changes):
    return fetch(url, **{"max_bytes": 1000, "is_allowed": None} | changes)


def test_addresses_of_the_internet_are_public():
    addresses = [
        "8.8.8.8", "2606:4700::1111", "1.1.1.1", "192.0.1.0", "198.20.0.0", "223.255.255.255", "2001:200::",
        "2001:db9::", "2003::1", "3ffe:ffff::",
    ]  # fmt: skip
    assert [one for one in addresses if not is_public(ipaddress.ip_address(one))] == []


def test_other_addresses_are_not_public():
    addresses = [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "0.0.0.0", "100.100.100.200", "224.0.0.1", "240.0.0.1",
        "169.254.169.254",  # the metadata service of clouds, which returns credentials
        "168.63.129.16",  # the same for virtual machines on Azure
        "192.88.99.1", "192.31.196.1", "192.52.193.1", "192.175.48.1", "192.0.0.9", "198.18.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "ff0e::1", "100::1", "5f00::1",
        "4000::1", "1fff::1", "2001::1", "2001:1ff::1", "2001:db8::1", "2620:4f:8000::1", "3fff::1", "3fff:fff::1",
        "::ffff:8.8.8.8", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::",  # embed an IPv4 address
    ]  # fmt: skip
    assert [one for one in addresses if is_public(ipaddress.ip_address(one))] == []


def test_an_answer_within_the_limits_comes_whole(site):
    assert get(f"{site}/picture?size=1") == b"x" * 10


def test_a_redirect_is_followed(site):
    assert get(f"{site}/to//picture") == b"x" * 10


@each_case(
    "url",
    ["file:///etc/passwd", "ftp://h/x", "gopher://h/", "http://", "http://u:p@h/", "http://h:99999/", "//h/x", "x",
     "http://h/a b", "http://[::1/", "http://h/\u00e4"],
)  # fmt: skip
def test_what_is_no_plain_url_is_refused(url):
    with pytest.raises(ValueError, match="is not a valid web address; give http://HOST"):
        get(url)


@each_case("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_no_spelling_of_a_private_address_is_connected_to(site, host):
    port = site.rpartition(":")[2]
    before = len(SEEN)
    with pytest.raises((ValueError, OSError), match=r"is not allowed; give a public host|cannot be downloaded"):
        fetch(f"http://{host}:{port}/", max_bytes=1000)
    assert len(SEEN) == before


def test_a_redirect_to_an_address_that_is_not_allowed_is_not_followed(site):
    port = site.rpartition(":")[2]
    with pytest.raises(ValueError, match="is not allowed; give a public host"):
        get(f"{site}/to/http://127.0.0.2:{port}/", is_allowed=lambda address: address == LOOPBACK)


def test_a_redirect_to_a_file_is_not_followed(site):
    with pytest.raises(ValueError, match="is not a valid web address"):
        get(f"{site}/to/file:///etc/passwd")


def test_a_circle_of_redirects_ends(site):
    with pytest.raises(ValueError, match="redirects more than 3 times; give the final URL"):
        get(f"{site}/to/")


@pytest.mark.parametrize("path", ["large", "honest"])
def test_an_answer_that_is_too_large_is_refused(site, path):
    with pytest.raises(ValueError, match="is larger than the allowed 0 MiB; give the URL of a smaller image"):
        get(f"{site}/{path}")


def test_an_answer_that_is_no_success_is_refused(site):
    with pytest.raises(ValueError, match="the URL returns status 404; give the URL of an image"):
        get(f"{site}/gone")


def test_an_answer_that_comes_too_slowly_is_given_up(site):
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="does not respond in time; try again"):
        get(f"{site}/slow", seconds=0.3)
    assert time.monotonic() - begin < 1


def test_a_host_that_does_not_answer_is_named_as_the_cause():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(OSError, match=r"the URL cannot be downloaded \(.*refused\); check it"):
        get(f"http://127.0.0.1:{port}/")


def test_what_is_no_http_is_an_error_too():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        with pytest.raises(OSError, match=r"the URL cannot be downloaded \("):
            get(f"http://127.0.0.1:{listener.getsockname()[1]}/")


def test_a_certificate_that_nobody_vouches_for_is_refused(site):
    with pytest.raises(OSError, match=r"the URL cannot be downloaded \("):
        get(site.replace("http:", "https:"))


def test_a_request_carries_nothing_of_this_machine(site, monkeypatch, tmp_path):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    get(f"{site}/plain")
    headers = next(headers for path, headers in reversed(SEEN) if path == "/plain")
    assert set(headers) == {"Host", "Accept", "Accept-Encoding", "User-Agent"}
