import json
import shlex
from pathlib import Path

import pytest

from cluster.submission.archive import SourceArchive
from cluster.submission.job import JobState
from cluster.submission.submit import (
    ResolvedJob,
    build_request,
    exit_code,
    is_worth_a_retry,
    resolve_job,
)
from tests.support.case_table import each_case

ARCHIVE = SourceArchive(folder=Path("/code"), files=(), left_out=(), commit="c" * 40, is_dirty="false")
SETTINGS = {"name": "big", "model": {"dropout": 0.5}}


def request(name="big", command=("train", "--name", "big"), settings=SETTINGS, runtime_env=None, variables=None):
    return build_request(
        name,
        command,
        settings=settings,
        archive=ARCHIVE,
        runtime_env=runtime_env or {},
        variables=variables or {},
    )


def job(job_id, status, *, made_from=None, exit_code=None):
    metadata = made_from.metadata if made_from else {}
    return JobState(id=job_id, status=status, entrypoint="", metadata=metadata, exit_code=exit_code)


def test_the_command_is_the_job_with_its_arguments_quoted():
    built = request(command=["train", "--name", "a b"])
    assert shlex.split(built.entrypoint) == ["python", "-m", "jobs.cli", "train", "--name", "a b"]


def test_commit_and_variables_travel_in_the_environment_and_no_more():
    built = request(runtime_env={"pip": ["x"], "env_vars": {"A": "1"}}, variables={"B": "2"})
    variables = {"A": "1", "B": "2", "CAPTIONING_GIT_COMMIT": "c" * 40, "CAPTIONING_GIT_DIRTY": "false"}
    assert built.runtime_env == {"pip": ["x"], "env_vars": variables}


def test_no_secret_travels():
    with pytest.raises(ValueError, match=r"^env_vars\.B_PWD looks like a secret"):
        request(variables={"B_PWD": "2"})
    with pytest.raises(ValueError, match=r"^pip looks like a secret"):
        request(runtime_env={"pip": ["https://u:p@host"]})


def test_the_cluster_keeps_name_commit_and_settings_with_a_job():
    metadata = request().metadata
    settings = {"job": "train", "name": "big", "model.dropout": "0.5"}
    assert json.loads(metadata.pop("captioning.settings")) == settings
    assert metadata == {
        "captioning.name": "big",
        "captioning.git_commit": "c" * 40,
        "captioning.git_dirty": "false",
    }


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], ResolvedJob(id="big-1", is_new=True)),
        ([job("big-1", "FAILED"), job("big-9", "STOPPED")], ResolvedJob(id="big-10", is_new=True)),
        ([job("bigger-4", "RUNNING"), job("big-x", "RUNNING")], ResolvedJob(id="big-1", is_new=True)),  # other names
        (
            [job("big-1", "FAILED"), job("big-2", "RUNNING", made_from=request())],
            ResolvedJob(id="big-2", is_new=False),
        ),
        ([job("big-1", "PENDING", made_from=request())], ResolvedJob(id="big-1", is_new=False)),
    ],
)
def test_a_live_job_is_found_again_and_else_the_next_number_is_taken(jobs, expected):
    assert resolve_job(request(), jobs) == expected


def test_a_name_taken_by_other_settings_is_refused_with_the_difference():
    live = job("big-1", "RUNNING", made_from=request(settings={"name": "big", "model": {"dropout": 0.1}}))
    message = r"big is taken by the live job big-1 with other settings \(model.dropout 0.1 -> 0.5\); .* stop big-1, or"
    with pytest.raises(ValueError, match=message):
        resolve_job(request(), [live])


def test_a_name_cannot_hold_a_path():
    with pytest.raises(ValueError, match="name 'a/b' cannot be a job's name; use letters"):
        request(name="a/b")


@pytest.mark.parametrize(
    "given",
    [{"command": ["train", "--tracking.uri", "http://me:pass@host"]}, {"settings": {"uri": "http://me:pass@host"}}],
)
def test_credentials_are_refused_and_not_repeated(given):
    with pytest.raises(ValueError, match=r"http://host holds credentials, which everyone could read") as refusal:
        request(**given)
    assert "pass@" not in f"{refusal.value}"


@each_case(
    ("status", "code", "expected", "is_again"),
    [
        ("SUCCEEDED", 0, 0, False),
        ("FAILED", 1, 1, True),
        ("FAILED", 2, 2, False),  # bad input
        ("FAILED", 3, 3, False),  # refused by a gate
        ("FAILED", None, 1, True),  # its process never started
        ("FAILED", -9, 137, True),  # killed
        ("STOPPED", None, 1, False),
    ],
)
def test_a_job_ends_with_the_code_of_its_process(status, code, expected, is_again):
    ended = job("a-1", status, exit_code=code)
    assert (exit_code(ended), is_worth_a_retry(ended)) == (expected, is_again)
