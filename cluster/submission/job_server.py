"""Ray's job server over HTTP: jobs by their ids, their logs, and refusals in one line."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cluster.errors import last_line
from cluster.resources.environment import set_library_defaults
from cluster.submission.address import address_set, check_server, no_token, server_address
from cluster.submission.dashboard import DashboardSnapshot, read_dashboard
from cluster.submission.job import JobState, job_state_of

logger = logging.getLogger(__name__)

_AWAY_SECONDS = 60.0
_DASHBOARD_SECONDS = 2.0
_POLL_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env")


class JobServer:
    """The job server of one cluster.

    Args:
        address: address of Ray's dashboard, http://HOST:PORT; RAY_API_SERVER_ADDRESS if not given.

    Raises:
        ValueError: no address was given, or what is there is not Ray, or of another version.
        ConnectionError: nothing answers.
        PermissionError: it wants a token.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = server_address(address)
        set_library_defaults()
        check_server(self.address)
        from ray.job_submission import JobSubmissionClient

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._plain_errors(), address_set(self.address):
            self._client: Any = JobSubmissionClient(self.address)

    def jobs(self) -> list[JobState]:
        """Return all jobs that were ever submitted to the cluster, the newest first."""
        with self._plain_errors():
            found = [job_state_of(job) for job in self._client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: (-(job.started or 0.0), job.id))

    def job(self, job_id: str) -> JobState:
        """Return a job.

        Raises:
            ValueError: there is none of this id.
        """
        import difflib

        with self._plain_errors():
            try:
                return job_state_of(self._client.get_job_info(job_id))
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
        near = difflib.get_close_matches(job_id, [job.id for job in self.jobs()], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "captioning jobs lists them"
        raise ValueError(f"the cluster at {self.address} knows no job {job_id}; {hint}")

    def dashboard(self) -> DashboardSnapshot:
        """Return what the cluster's dashboard reports of its nodes; nothing if it cannot be read."""

        def get(path: str, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401  any document
            answer = self._client._do_request("GET", path, params=parameters, timeout=_DASHBOARD_SECONDS)
            return answer.json()["data"] if answer.status_code == 200 else None

        try:
            with self._plain_errors():
                return read_dashboard(get)
        except (AttributeError, ConnectionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            logger.debug("the dashboard at %s reports nothing of its nodes", self.address, exc_info=error)
            return DashboardSnapshot([], "", may_grow=True)

    def submit(
        self,
        job_id: str,
        *,
        entrypoint: str,
        runtime_env: Mapping[str, Any],
        metadata: Mapping[str, str],
        num_gpus: float = 0.0,
    ) -> bool:
        """Submit a job; return False if another one has taken the id.

        Raises:
            RuntimeError: the cluster refuses it.
        """
        with self._plain_errors():
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env=dict(runtime_env),
                    metadata=dict(metadata),
                    entrypoint_num_gpus=num_gpus or None,
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                raise
        return True

    def stop(self, job_id: str) -> JobState:
        """Tell a job to end, and return it once it is over; one that is over already stays as it is."""
        with self._plain_errors():
            self._client.stop_job(job_id)
        while not (job := self.job(job_id)).is_over:
            time.sleep(_POLL_SECONDS)
        return job

    def log(self, job_id: str) -> list[str]:
        """Return the lines of a job's log so far."""
        with self._plain_errors():
            return self._client.get_job_logs(job_id).splitlines()

    def follow(self, job_id: str, show: Callable[[str], None]) -> JobState:
        """Show the lines of a job's log as they come, until it is over; a connection that breaks is made again.

        Raises:
            ConnectionError: the cluster no longer answers.
        """
        lines, away_since = _Lines(show), None
        while True:
            lines.begin()
            is_whole = asyncio.run(self._tail(job_id, lines))
            try:
                job = self.job(job_id)
                if not is_whole:  # such as behind a proxy without web sockets
                    lines.begin()
                    lines.add("\n".join(self.log(job_id)))
            except ConnectionError as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _AWAY_SECONDS:
                    raise ConnectionError(
                        f"the cluster at {self.address} no longer answers, and job {job_id} may go on; "
                        f"captioning logs {job_id} --follow looks again"
                    ) from error
            else:
                away_since = None
                if job.is_over:
                    lines.end()
                    return job
            time.sleep(_POLL_SECONDS)

    async def _tail(self, job_id: str, lines: "_Lines") -> bool:
        """Take pieces of a log as they come; return whether the connection held until the cluster ended it.

        The cluster ends it some seconds after the job: in a pause, the job is looked at, and the rest left to be asked.
        """
        pieces = self._client.tail_job_logs(job_id)
        while True:
            piece = asyncio.ensure_future(anext(pieces))
            try:
                while not (await asyncio.wait([piece], timeout=_PAUSE_SECONDS))[0]:
                    if self.job(job_id).is_over:
                        return False
                lines.add(piece.result())
            except StopAsyncIteration:
                return True
            except Exception as error:  # aiohttp raises many kinds
                logger.debug("the connection to the log of job %s broke", job_id, exc_info=error)
                return False
            finally:
                piece.cancel()

    def rank_log(self, worker: Mapping[str, Any]) -> list[str]:
        """Return the lines of a rank's log so far, from its node.

        Args:
            worker: rank, host, node_id and log, as the job's progress reports them.

        Raises:
            ValueError: the node does not have it, or is gone.
        """
        file = {"node_id": worker["node_id"], "filename": worker["log"], "lines": -1}
        with self._plain_errors():
            # Ray's own get_log asks the cluster's GCS, which cannot be reached from outside.
            answer = self._client._do_request("GET", "/api/v0/logs/file", params=file)
        if answer.status_code != 200 or not answer.text:  # a file that is not there is an empty one
            raise ValueError(
                f"the log of rank {worker['rank']} on {worker['host']} cannot be had; its node may be gone "
                f"(status {answer.status_code})"
            )
        return answer.text.splitlines()

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what Ray's client raises into one line."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise no_token(self.address) from None
        except OSError as error:  # as all of what its HTTP library raises
            raise ConnectionError(
                f"the cluster at {self.address} does not answer ({type(error).__name__}); "
                "look whether it still runs, or correct --address"
            ) from error
        except RuntimeError as error:
            raise RuntimeError(f"the cluster at {self.address} refuses that: {last_line(error)}") from error


class _Lines:
    """Puts pieces of a log together to lines, and shows each once, though every connection begins at the first."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._num_shown = show, 0
        self._num_lines, self._rest = 0, ""

    def begin(self) -> None:
        self._num_lines, self._rest = 0, ""

    def add(self, text: str) -> None:
        *lines, self._rest = f"{self._rest}{text}".split("\n")
        for line in lines:
            self._add_line(line)

    def end(self) -> None:
        if self._rest:
            self._add_line(self._rest)

    def _add_line(self, line: str) -> None:
        self._num_lines += 1
        if self._num_lines > self._num_shown:
            self._num_shown = self._num_lines
            self._show(line)
