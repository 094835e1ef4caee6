"""HTTP server with answers that a test defines."""

import json
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(answers: Mapping[str, tuple[int, object]]):
    """Serve a status and a document for each path, and 404 for other paths; yield the address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            status, document = answers.get(self.path, (404, "nothing"))
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", f"{len(body)}")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *arguments):
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
