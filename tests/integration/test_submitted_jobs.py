"""Jobs on a real cluster, by its job server alone: a head of our own with a dashboard."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cluster.submission.archive import plan_archive
from cluster.submission.job_server import JobServer
from cluster.submission.submit import build_request, submit
from shards.manifest import load_manifest
from shards.synthetic.scenes import write_scenes
from tests.support.ray_head import captioning, code_that, job_head
from tests.support.repository import ROOT

pytestmark = pytest.mark.cluster

# What runs on the cluster in place of our own command line, so that a job takes no longer than it must.
SLEEPS = """
import os, sys, time
sys.stderr.write(f"sleeps as {os.environ['CAPTIONING_JOB']} of commit {os.environ['CAPTIONING_GIT_COMMIT']}\\n")
sys.stderr.write('captioning-progress {"kind": "convert", "step": 3}\\n')
time.sleep(600)
"""
FAILS = "import sys; sys.exit('error: it always fails')"


@pytest.fixture(scope="module")
def address():
    """Return the address of a head's dashboard."""
    with job_head(num_gpus=1) as address:
        yield address


@pytest.fixture(scope="module")
def server(address):
    server = JobServer(address)
    # The first job of all waits for a head that has just started, and is no measure of a submission.
    server.submit("first-1", entrypoint="true", runtime_env={}, metadata={})
    return server


@pytest.fixture(scope="module")
def asleep(server, tmp_path_factory):
    """Return a job that sleeps: its request and its id."""
    request = build_request(
        "asleep",
        ["convert", "/a", "/b"],
        settings={"source": "/a"},
        archive=plan_archive(code_that(SLEEPS, tmp_path_factory.mktemp("code") / "c")),
        runtime_env={},
        variables={},
    )
    return SimpleNamespace(request=request, id=submit(server, request).id)


def test_the_process_of_a_job_that_wants_a_gpu_has_one(server, tmp_path):
    shows = "import os; print('sees GPU', os.environ.get('CUDA_VISIBLE_DEVICES'))"
    request = build_request(
        "on-gpu",
        ["evaluate", "/a"],
        settings={},
        archive=plan_archive(code_that(shows, tmp_path / "c")),
        runtime_env={},
        variables={},
        num_gpus=1,
    )
    lines = []
    assert server.follow(submit(server, request).id, lines.append).status == "SUCCEEDED"
    assert "sees GPU 0" in lines


def test_the_same_again_finds_the_live_job(server, asleep):
    assert (submit(server, asleep.request).id, submit(server, asleep.request).is_new) == ("asleep-1", False)


def test_an_id_that_another_has_taken_meanwhile_is_told(server, asleep):
    assert not server.submit("asleep-1", entrypoint="true", runtime_env={}, metadata={})


def test_what_the_cluster_refuses_is_told_in_a_line(server):
    with pytest.raises(
        RuntimeError, match=r"^the cluster at .* refuses the request: Request failed .* does not exist\.$"
    ):
        server.stop("nothing-1")


def test_an_unknown_job_is_named_with_those_near_it(server, asleep):
    with pytest.raises(ValueError, match=r"has no job aslep-1; did you mean asleep-1\?"):
        server.job("aslep-1")
    with pytest.raises(ValueError, match=r"has no job zzz; list its jobs with captioning jobs"):
        server.job("zzz")


def test_ctrl_c_detaches_and_says_how_to_come_back(address, asleep):
    environment = {**os.environ, "RAY_API_SERVER_ADDRESS": address, "PYTHONPATH": f"{ROOT}"}
    # Shells start what runs in the background deaf to Ctrl-C, and tests may run there.
    follow = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cluster.submission.job_server import JobServer; from jobs.cli import exit_after\n"
        "from jobs.submit import _follow\n"
        "exit_after(lambda: _follow(JobServer(), 'asleep-1'))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", follow]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as following:
        assert following.stderr
        seen = next(line for line in following.stderr if line.startswith("sleeps"))
        following.send_signal(signal.SIGINT)
        told = following.stderr.read()
    assert (following.returncode, seen) == (130, "sleeps as asleep-1 of commit unknown\n")
    assert "job asleep-1 is still running; see its log with captioning logs asleep-1 --follow" in told
    assert "captioning-progress" not in told


def test_the_job_goes_on_and_is_listed_with_how_far_it_is(address, asleep):
    listed = json.loads(captioning(address, "jobs", "--json").out)
    status = json.loads(captioning(address, "status", "asleep-1", "--json").out)
    assert [job["status"] for job in listed if job["id"] == "asleep-1"] == ["RUNNING"]
    assert (status["status"], status["progress"]["step"]) == ("RUNNING", 3)


def test_a_rank_that_no_job_has_told_of_has_no_log(address, asleep):
    answer = captioning(address, "logs", "asleep-1", "--rank", "3")
    assert (answer.code, "job asleep-1 has reported no ranks" in answer.told) == (2, True)


def test_the_log_of_a_rank_comes_from_its_node(server, asleep):
    node = server._client.get_job_info("asleep-1").driver_node_id
    place = {"rank": 3, "host": "h", "node_id": node, "log": "raylet.out"}
    assert server.rank_log(place)
    with pytest.raises(ValueError, match=r"the log of rank 3 on h cannot be read .*; its node may be gone"):
        server.rank_log({**place, "log": "nothing.err"})


def test_a_job_is_stopped_once_and_a_second_stop_says_so(address, server, asleep):
    answers = [captioning(address, "stop", "asleep-1") for _ in range(2)]
    expected = ["job asleep-1 has ended: STOPPED", "job asleep-1 has already ended: STOPPED"]
    assert [(answer.code, answer.told.strip()) for answer in answers] == [(0, text) for text in expected]


def test_a_conversion_runs_on_the_cluster_and_ends_as_here(address, tmp_path):
    write_scenes(tmp_path / "scenes", num_train=6, num_val=2, seed=1, size_px=64)
    arguments = ["convert", f"{tmp_path / 'scenes'}", f"{tmp_path / 'shards'}", "--num-workers", "0"]
    answer = captioning(address, "submit", "--working-dir", f"{ROOT}", "--json", *arguments)
    ended = {"id": "convert-1", "status": "SUCCEEDED", "exit_code": 0}
    assert (answer.code, json.loads(answer.out)) == (0, ended), answer.told
    assert load_manifest(tmp_path / "shards").splits == {"train": 6, "val": 2}
    assert captioning(address, "status", "convert-1", "--watch").told.startswith("convert-1: status SUCCEEDED, ")
    assert "images 6 train, 2 val; 0 set aside" in captioning(address, "logs", "convert-1").out


def test_a_job_that_fails_is_submitted_again_as_often_as_wanted(address, tmp_path):
    code = code_that(FAILS, tmp_path / "code")
    own = ["--working-dir", f"{code}", "--retries", "1", "--name", "failing", "--json"]
    answer = captioning(address, "submit", *own, "convert", "/a", "/b")
    ended = {"id": "failing-2", "status": "FAILED", "exit_code": 1}
    assert (answer.code, json.loads(answer.out)) == (1, ended), answer.told
    assert "job failing-1 failed; submitting it again, retries left after that: 0" in answer.told
    assert "failing-2 ended as FAILED: it always" in answer.told


def test_what_a_job_names_and_needs_travels_with_it(address, tmp_path):
    tells = "import os; print('has', os.environ['A'], open('search.yaml').read())"
    code = code_that(tells, tmp_path / "code")
    (tmp_path / "search.yaml").write_text("model.hidden_size: choice([8])")
    (tmp_path / "env.yaml").write_text("env_vars: {A: b}")
    own = ["--working-dir", code, "--runtime-env", "env.yaml"]
    tune = ["tune", "--shards", "/s", "--home", "/h", "--search", "search.yaml", "--cluster.num-workers", "1"]
    answer = captioning(address, "submit", *own, *tune, folder=tmp_path)
    assert (answer.code, "has b model.hidden_size: choice([8])" in answer.told) == (0, True), answer.told
