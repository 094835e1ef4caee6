"""S3 server in this process, which starts empty and can be cut off."""

import logging
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer


class S3Server:
    """S3 server on a free port; the constructor starts it.

    Attributes:
        is_up: whether it answers.
        variables: environment variables that clients need to reach it.
    """

    def __init__(self) -> None:
        self.is_up = False
        self._listen(0)
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.start()

    def start(self) -> None:
        """Answer again, with the same buckets."""
        if self.is_up:
            return
        if self._is_closed:
            self._listen(self._server.server_port)
        # werkzeug's own method would close the socket at the end, and so refuse connections instead of being silent.
        self._thread = threading.Thread(target=HTTPServer.serve_forever, args=(self._server,), daemon=True)
        self._thread.start()
        self.is_up = True

    def cut_off(self, *, silently: bool = False) -> None:
        """Stop to answer.

        Args:
            silently: whether connections wait for an answer, as when a network drops packets; else they are refused.
        """
        if self.is_up:
            self._server.shutdown()
            self._thread.join()
            self.is_up = False
        if not silently:
            self._server.server_close()
            self._is_closed = True

    def close(self) -> None:
        """End the server, and forget its buckets."""
        self.start()
        # All moto servers of a process share their buckets: empty them for the next one.
        url = self.variables["AWS_ENDPOINT_URL"]
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        self.cut_off()

    def _listen(self, port: int) -> None:
        # These take 0.5 s to import, which other tests need not wait for.
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", port, app, threaded=True, request_handler=MotoRequestHandler)
        self._is_closed = False


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run a server; yield the environment variables that clients need to reach it."""
    server = S3Server()
    yield server.variables
    server.close()


class Bucket(S3Server):
    """A server with one bucket, which this process and those that it starts find in their environment."""

    url = "s3://bucket"

    def __init__(self) -> None:
        super().__init__()
        self._earlier = {name: os.environ.get(name) for name in self.variables}
        os.environ.update(self.variables)
        import fsspec

        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")

    def close(self) -> None:
        """End the server, and forget the bucket."""
        super().close()
        for name, value in self._earlier.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
