"""Client of MLflow whose process dies at a request."""

from functools import wraps

from mlflow import MlflowClient


class Killed(BaseException):
    """Ends a function where a kill would end its process; no ``except Exception`` sees it."""


class DyingClient:
    """Client that passes a number of requests on, and dies after the last one of them.

    Args:
        client: client to pass requests on to.
        num_requests: number of requests that reach the tracker.
    """

    def __init__(self, client: MlflowClient, num_requests: int) -> None:
        self._client, self._left = client, num_requests

    def __getattr__(self, name):
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @wraps(found)
        def request(*arguments, **options):
            if self._left == 0:
                raise Killed
            self._left -= 1
            return found(*arguments, **options)

        return request
