"""Between a client and a server: passes requests on, and strikes at the one it was told to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Moment = Literal["before", "after"]
_NOT_PASSED_ON = ("host", "connection", "transfer-encoding", "content-length", "accept-encoding")


class Cutter:
    """Counts requests, and cuts the line at one of them.

    Args:
        address: of the server.
        only_writes: whether to count no GET, which leaves the server as it was.
    """

    def __init__(self, address: str, *, only_writes: bool = False) -> None:
        self.server = urlsplit(address).netloc
        self._only_writes = only_writes
        self._lock = threading.Lock()
        self.arm(0, "before", lambda: None)

    def arm(self, number: int, moment: Moment, strike: Callable[[], None]) -> None:
        """Cut at the request of this number, counted from 1: before the server has it, or before its answer is out.

        Args:
            number: of the request; 0 for none.
            moment: of it.
            strike: done then.
        """
        self._number, self._moment, self._strike, self.count = number, moment, strike, 0

    def next(self, method: str) -> int:
        """Count a request; return its number, 0 for one that does not count."""
        if self._only_writes and method == "GET":
            return 0
        with self._lock:
            self.count += 1
            return self.count

    def cuts(self, number: int, moment: Moment) -> bool:
        """Return whether the line is cut now, having struck."""
        if not number or (number, moment) != (self._number, self._moment):
            return False
        self._strike()
        return True


@contextmanager
def cutting(address: str, *, only_writes: bool = False) -> Iterator[tuple[str, Cutter]]:
    """Stand before a server; yield the address to use, and what decides about cuts."""
    cutter = Cutter(address, only_writes=only_writes)

    class Pass(BaseHTTPRequestHandler):
        def do_GET(self):
            number = cutter.next(self.command)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.close_connection = True
            if cutter.cuts(number, "before"):
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
            with closing(HTTPConnection(cutter.server, timeout=60)) as line:
                line.request(self.command, self.path, body, headers)
                answer = line.getresponse()
                content = answer.read()
            if cutter.cuts(number, "after"):
                return
            with suppress(ConnectionError):  # whoever asked was killed
                self.answer(answer, content)

        def answer(self, answer, content):
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            self.send_header("Content-Length", f"{len(content)}")
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  names that the base class asks for

        def log_message(self, format, *arguments):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pass)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", cutter
    finally:
        server.shutdown()
        server.server_close()
