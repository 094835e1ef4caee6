"""Client of Ray's job server over HTTP: submits, lists, follows and stops jobs, with errors of one line."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from cluster.errors import last_line
from cluster.resources.environment import set_library_defaults
from cluster.submission.address import address_set, check_server, no_token, not_ray, server_address
from cluster.submission.dashboard import DashboardSnapshot, read_dashboard
from cluster.submission.job import JobState, job_state_of

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 60.0
_STOP_SECONDS = 300.0
_AWAY_SECONDS = 60.0  # how long a followed cluster may not answer
_DASHBOARD_SECONDS = 2.0
_POLL_SECONDS = 0.5
_PAUSE_SECONDS = 1.0  # without new log lines, before the job's state is checked
_TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env")


class JobServer:
    """The job server of one cluster.

    Args:
        address: address of Ray's dashboard, http://HOST:PORT; RAY_API_SERVER_ADDRESS if not given.

    Raises:
        ValueError: no address was given, or what answers is not Ray, or another version of it.
        ConnectionError: nothing answers.
        PermissionError: the cluster requires another token.
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
        # All requests of Ray's client go through this method, which waits without an end.
        self._client._do_request = partial(self._client._do_request, timeout=_ANSWER_SECONDS)

    def jobs(self) -> list[JobState]:
        """Return all jobs that the cluster lists, the newest first; ended ones too."""
        with self._plain_errors():
            found = [job_state_of(job) for job in self._client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: (-(job.started or 0.0), job.id))

    def job(self, job_id: str) -> JobState:
        """Return the state of a job.

        Raises:
            ValueError: there is no job with this id.
        """
        import difflib

        with self._plain_errors():
            try:
                return job_state_of(self._client.get_job_info(job_id))
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
        near = difflib.get_close_matches(job_id, [job.id for job in self.jobs()], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "list its jobs with captioning jobs"
        raise ValueError(f"the cluster at {self.address} has no job {job_id}; {hint}")

    def dashboard(self) -> DashboardSnapshot:
        """Return the dashboard's snapshot of the cluster; an empty one if the dashboard cannot be read."""

        def get(path: str, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401  any document
            answer = self._client._do_request("GET", path, params=parameters, timeout=_DASHBOARD_SECONDS)
            return answer.json()["data"] if answer.status_code == 200 else None

        try:
            with self._plain_errors():
                return read_dashboard(get)
        except (AttributeError, ConnectionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            logger.debug("the dashboard at %s does not report its nodes", self.address, exc_info=error)
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
        """Submit a job; return False if another job has the id already.

        Raises:
            RuntimeError: the cluster refuses the job.
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
        """Stop a job, and return its state once it has ended; a job that has ended already is left unchanged.

        Raises:
            TimeoutError: the job has not ended in time.
        """
        with self._plain_errors():
            self._client.stop_job(job_id)
        deadline = time.monotonic() + _STOP_SECONDS
        while not (job := self.job(job_id)).is_over:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"job {job_id} has not ended {_STOP_SECONDS:g} s after it was told to stop; its node may be gone: "
                    "run the same command again later"
                )
            time.sleep(_POLL_SECONDS)
        return job

    def log(self, job_id: str) -> list[str]:
        """Return the lines of a job's log up to now."""
        with self._plain_errors():
            return self._client.get_job_logs(job_id).splitlines()

    def follow(self, job_id: str, show: Callable[[str], None]) -> JobState:
        """Show the lines of a job's log as they arrive, until the job ends; reconnect if the connection breaks.

        Args:
            job_id: id of the job.
            show: function that is called with each line.

        Returns:
            The final state of the job.

        Raises:
            ConnectionError: the cluster has not answered for 60 s.
        """
        lines, away_since = _Lines(show), None
        while True:
            lines.begin()
            is_whole = asyncio.run(self._tail(job_id, lines))
            try:
                job = self.job(job_id)
                if not is_whole:  # for example behind a proxy without web sockets: read the log by plain HTTP
                    lines.begin()
                    lines.add("\n".join(self.log(job_id)))
            except ConnectionError as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _AWAY_SECONDS:
                    raise ConnectionError(
                        f"the cluster at {self.address} no longer answers, and job {job_id} may still run; "
                        f"try again with captioning logs {job_id} --follow"
                    ) from error
            else:
                away_since = None
                if job.is_over:
                    lines.end()
                    return job
            time.sleep(_POLL_SECONDS)

    async def _tail(self, job_id: str, lines: "_Lines") -> bool:
        """Read a log as it arrives; return whether the connection lasted until the cluster closed it.

        The cluster closes it only some seconds after the job's end. So when no new text arrives, check the job; if it
        has ended, return False, and the caller reads the whole log.
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
            except Exception as error:  # aiohttp raises many types of errors
                logger.debug("the connection to the log of job %s broke", job_id, exc_info=error)
                return False
            finally:
                piece.cancel()

    def rank_log(self, worker: Mapping[str, Any]) -> list[str]:
        """Return the lines of a rank's log up to now, from its node.

        Args:
            worker: rank, host, node_id and log of the rank, as the job's progress reports them.

        Raises:
            ValueError: the node does not have the log, or is gone.
        """
        file = {"node_id": worker["node_id"], "filename": worker["log"], "lines": -1}
        with self._plain_errors():
            # Not Ray's own get_log: it connects to the cluster's GCS, which cannot be reached from outside.
            answer = self._client._do_request("GET", "/api/v0/logs/file", params=file)
        if answer.status_code != 200 or not answer.text:  # Ray returns a missing file as an empty one
            raise ValueError(
                f"the log of rank {worker['rank']} on {worker['host']} cannot be read (status {answer.status_code}); "
                "its node may be gone"
            )
        return answer.text.splitlines()

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn the errors of Ray's client into errors of one line."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise no_token(self.address) from None
        except (json.JSONDecodeError, ValidationError) as error:
            raise not_ray(self.address) from error
        except OSError as error:  # base class of all errors of the client's HTTP library
            raise ConnectionError(
                f"the cluster at {self.address} does not answer ({type(error).__name__}); "
                "check that it is running, or correct --address"
            ) from error
        except RuntimeError as error:
            raise RuntimeError(f"the cluster at {self.address} refuses the request: {last_line(error)}") from error


class _Lines:
    """Joins the pieces of a log to lines, and shows each line once, although every connection starts at the first."""

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
