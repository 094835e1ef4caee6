"""What a submission to a real cluster is refused for, through the command line: one line each, and nothing was sent."""

import json
import os
import time

import pytest

from cluster.submission.job_server import JobServer
from tests.support.ray_head import captioning, captioning_process, code_that, job_head
from tests.support.repository import ROOT

pytestmark = pytest.mark.cluster

SLEEPS = "import time; time.sleep(600)"


@pytest.fixture(scope="module")
def address():
    with job_head() as address:
        server, deadline = JobServer(address), time.monotonic() + 60
        while server.dashboard().may_grow:  # until the head has told that it has no autoscaler
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield address


@pytest.fixture(scope="module")
def train(drawn_shards, tmp_path_factory):
    return ["train", "--shards", drawn_shards, "--home", tmp_path_factory.mktemp("home"), "--name", "big"]


def last_line(answer):
    return answer.told.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--cluster.use-gpu"],
            "error: 2 workers of 1 CPU, 1 GPU do not fit: the cluster's 1 node has 2 CPU, 0 GPU, enough for 0; "
            "use less for each worker, or a larger cluster",
        ),
        (
            ["--cluster.num-workers", "3"],
            "error: 3 workers of 1 CPU do not fit: the cluster's 1 node has 2 CPU, enough for 2; "
            "use --cluster.num-workers 2, or a larger cluster",
        ),
        (
            ["--tracking.uri", "sqlite:///runs/mlflow.db"],
            "error: tracking address sqlite:///runs/mlflow.db is relative to a folder on this machine; use the path "
            "as the cluster's nodes see it, such as sqlite:////mnt/runs/mlflow.db, or a server",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_job_that_cannot_work_is_not_sent(address, train, flags, told):
    answer = captioning(address, "submit", *train, *flags)
    assert (answer.code, last_line(answer), captioning(address, "jobs", "--json").out.strip()) == (2, told, "[]")


def test_trials_of_a_search_are_asked_for_room_likewise(address, train):
    answer = captioning(address, "submit", "tune", *train[1:], "--cluster.cpus-per-worker", "4")
    assert (answer.code, "error: 1 worker of 4 CPU does not fit" in answer.told) == (2, True)


def test_a_dry_submission_tells_where_it_would_run(address, train):
    answer = captioning(address, "submit", "--dry-run", "--json", *train)
    cluster = json.loads(answer.out)["cluster"]
    assert (answer.code, [room["total"] for room in cluster["workers"]]) == (0, [2]), answer.told
    assert [check["verdict"] for check in cluster["checks"]] == ["ok", "ok"]
    assert "Capacity, free/total" in answer.told
    assert "to estimate the duration on the cluster: captioning submit train" in answer.told


def test_a_dry_submission_of_what_cannot_work_is_refused(address, train):
    answer = captioning(address, "submit", "--dry-run", *train, "--cluster.num-workers", "3")
    assert (answer.code, "would submit job big-1" in answer.told, last_line(answer)[:40]) == (
        2, True, "error: 3 workers of 1 CPU do not fit: th",
    )  # fmt: skip


def test_code_that_is_too_large_is_not_sent(address, tmp_path):
    code = code_that(SLEEPS, tmp_path / "code")
    (code / "jobs" / "weights.bin").write_bytes(os.urandom(101 * 2**20))
    answer = captioning(address, "submit", "--working-dir", code, "convert", "/a", "/b")
    assert (answer.code, "MiB zipped, and Ray accepts less than 100 MiB; move the largest files" in answer.told) == (
        2, True,
    )  # fmt: skip


def test_a_name_that_another_configuration_has_is_refused_with_the_difference(address, tmp_path):
    code = code_that(SLEEPS, tmp_path / "code")
    first, again, other = [
        captioning(address, "submit", "--no-wait", "--working-dir", code, "convert", "/a", target)
        for target in ("/b", "/b", "/c")
    ]
    assert [answer.code for answer in (first, again, other)] == [0, 0, 2]
    assert ("submitted job convert-1" in first.told, "following the live job convert-1" in again.told) == (True, True)
    assert last_line(other) == (
        "error: name convert is taken by the live job convert-1 with other settings (shards /b -> /c); wait for it, "
        "stop it with captioning stop convert-1, or submit with another --name before the job"
    )
    assert captioning(address, "stop", "convert-1").code == 0


@pytest.mark.parametrize("job", ["status", "logs", "stop"])
def test_a_job_that_is_not_known_is_bad_input(address, job):
    answer = captioning(address, job, "zzz")
    assert (answer.code, last_line(answer)) == (
        2, f"error: the cluster at {address} has no job zzz; list its jobs with captioning jobs",
    )  # fmt: skip


def test_what_only_the_cluster_can_see_is_refused_by_the_job_in_one_line(address, train, tmp_path):
    arguments = [f"{tmp_path / 'none'}" if one == train[2] else one for one in train]
    answer = captioning(address, "submit", "--working-dir", ROOT, *arguments)
    assert (answer.code, last_line(answer)) == (
        2,
        f"error: job big-1 ended as FAILED: {tmp_path}/none/manifest.json does not exist: {tmp_path}/none is not "
        "a finished shard set; run captioning convert",
    )


def test_the_port_of_another_of_rays_services_is_not_taken_for_the_dashboard(address):
    answer = captioning(address, "jobs", "--address", f"http://{gcs_address(address)}")
    assert (answer.code, "is not Ray's job server; use the dashboard's address (port 8265" in answer.told) == (
        2, True,
    )  # fmt: skip


def gcs_address(address):
    """Return host and port of a head's control service, which its first job is told."""
    server = JobServer(address)
    server.submit("address-1", entrypoint="printenv RAY_ADDRESS", runtime_env={}, metadata={})
    lines = []
    server.follow("address-1", lines.append)
    return lines[-1]


def test_a_cluster_that_wants_a_token_takes_the_right_one_alone():
    token = "0123456789abcdef" * 2
    mode = {"RAY_AUTH_MODE": "token"}
    with job_head(**mode, RAY_AUTH_TOKEN=token) as address:
        answers = [
            captioning_process(address, "jobs", **variables)
            for variables in (
                {"RAY_AUTH_MODE": "disabled"},
                mode | {"RAY_AUTH_TOKEN": "another"},
                mode | {"RAY_AUTH_TOKEN": token},
            )
        ]
    assert [answer.code for answer in answers] == [2, 2, 0]
    assert [last_line(answer) for answer in answers[:2]] == [
        f"error: the cluster at {address} requires a token; "
        "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to its file"
    ] * 2
