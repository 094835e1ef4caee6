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
    forwarded_variables,
    is_worth_a_retry,
    read_runtime_env,
    resolve_job,
)

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


def test_named_variables_travel_and_those_of_every_job_if_they_are_set():
    here = {"MINE": "1", "OTHER": "2", "CAPTIONING_HOME": "/mnt/runs"}
    assert forwarded_variables(["MINE"], here) == {"CAPTIONING_HOME": "/mnt/runs", "MINE": "1"}


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "api_key",
        "MY_CREDENTIALS",
        "DB_PWD",
        "DB_PASS",
        "PASS",
        "BASIC_AUTH",
        "NPM_CONFIG__AUTH",
    ],
)
def test_variables_that_look_secret_are_refused(name):
    with pytest.raises(
        ValueError,
        match=f"^{name} looks like a secret, .*; set it in the environment or",
    ):
        forwarded_variables([name], {name: "x"})


def test_a_variable_with_credentials_in_its_address_is_refused():
    with pytest.raises(ValueError, match=r"^env_vars\.MLFLOW_TRACKING_URI looks like a secret"):
        request(variables=forwarded_variables([], {"MLFLOW_TRACKING_URI": "http://me:pass@host"}))


def test_a_secret_in_a_runtime_environment_is_refused():
    with pytest.raises(ValueError, match=r"^env_vars\.HF_TOKEN looks like a secret"):
        request(runtime_env={"env_vars": {"HF_TOKEN": "x"}})


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"pip": ["--extra-index-url https://user:SECRET@host/simple", "a"]}, "pip"),
        ({"pip": {"packages": ["git+https://SECRET@host/a.git"]}}, r"pip\.packages"),
        ({"uv": {"packages": [], "uv_pip_install_options": ["--index", "https://host/?token=SECRET"]}}, r"uv\.uv_pip"),
        ({"conda": {"dependencies": ["a", {"pip": ["a @ https://u:SECRET@host/a.whl"]}]}}, r"conda\.dependencies"),
        ({"conda": {"variables": {"DB_PWD": "SECRET"}}}, r"conda\.variables\.DB_PWD"),
        ({"config": {"https://u:SECRET@host": True}}, "config"),
    ],
)
def test_a_secret_anywhere_in_a_runtime_environment_is_refused_and_not_repeated(content, name):
    with pytest.raises(ValueError, match=rf"^{name}.* looks like a secret, which everyone could read") as refusal:
        request(runtime_env=content)
    assert "SECRET" not in f"{refusal.value}"


@pytest.mark.parametrize(
    "content",
    [
        {"pip": ["git+ssh://git@host/a.git", "a @ https://host/a.whl", "--index-url https://host/simple"]},
        {"env_vars": {"GIT_AUTHOR_NAME": "a", "RAY_AUTH_MODE": "token", "PASSES": "3", "PWD": "/x"}},
        {"image_uri": "registry/captioning@sha256:abc"},
    ],
)
def test_what_is_no_secret_is_sent(content):
    assert request(runtime_env=content).runtime_env.keys() >= content.keys()


@pytest.mark.parametrize(
    ("manager", "text"), [("pip", "--index-url https://u:SECRET@h\na\n"), ("conda", "variables: {A_TOKEN: SECRET}")]
)
def test_the_file_of_requirements_that_a_runtime_environment_names_is_searched_too(tmp_path, manager, text):
    (tmp_path / "needs.yml").write_text(text)
    (tmp_path / "env.yaml").write_text(f"{manager}: {tmp_path}/needs.yml\n")
    with pytest.raises(ValueError, match=rf"^{manager}.* looks like a secret"):
        request(runtime_env=read_runtime_env(tmp_path / "env.yaml"))


def test_a_variable_that_is_not_set_is_refused():
    with pytest.raises(ValueError, match="--env MINE: the variable is not set here; set it, or leave it out"):
        forwarded_variables(["MINE"], {})


def test_a_runtime_environment_is_read(tmp_path):
    (tmp_path / "env.yaml").write_text("pip: [a, b]\nenv_vars: {A: '1'}\n")
    assert read_runtime_env(tmp_path / "env.yaml") == {"pip": ["a", "b"], "env_vars": {"A": "1"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("[1]", "contains no settings; write some of pip, uv, conda, env_vars"),
        ("working_dir: .", "working_dir cannot be set; the code comes from --working-dir"),
        ("pips: []", "pips cannot be set; use pip, uv"),
        ("pip: []\nuv: []", "holds pip and uv, and Ray accepts only one"),
        ("env_vars: {A: 1}", "the values of env_vars must be text, such as A: '1'"),
    ],
)
def test_a_faulty_runtime_environment_is_refused(tmp_path, text, message):
    (tmp_path / "env.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_runtime_env(tmp_path / "env.yaml")


def test_a_runtime_environment_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--runtime-env .*env.yaml does not exist"):
        read_runtime_env(tmp_path / "env.yaml")


@pytest.mark.parametrize(
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
