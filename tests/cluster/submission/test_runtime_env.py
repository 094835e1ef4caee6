import pytest

from cluster.submission.runtime_env import forwarded_variables, read_runtime_env, refuse_secrets
from tests.support.case_table import each_case


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
        refuse_secrets({"env_vars": forwarded_variables([], {"MLFLOW_TRACKING_URI": "http://me:pass@host"})})


def test_a_secret_in_a_runtime_environment_is_refused():
    with pytest.raises(ValueError, match=r"^env_vars\.HF_TOKEN looks like a secret"):
        refuse_secrets({"env_vars": {"HF_TOKEN": "x"}})


@each_case(
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
        refuse_secrets(content)
    assert "SECRET" not in f"{refusal.value}"


@each_case(
    "content",
    [
        {"pip": ["git+ssh://git@host/a.git", "a @ https://host/a.whl", "--index-url https://host/simple"]},
        {"env_vars": {"GIT_AUTHOR_NAME": "a", "RAY_AUTH_MODE": "token", "PASSES": "3", "PWD": "/x"}},
        {"image_uri": "registry/captioning@sha256:abc"},
    ],
)
def test_what_is_no_secret_may_be_sent(content):
    assert refuse_secrets(content) is None


@pytest.mark.parametrize(
    ("manager", "text"), [("pip", "--index-url https://u:SECRET@h\na\n"), ("conda", "variables: {A_TOKEN: SECRET}")]
)
def test_the_file_of_requirements_that_a_runtime_environment_names_is_searched_too(tmp_path, manager, text):
    (tmp_path / "needs.yml").write_text(text)
    (tmp_path / "env.yaml").write_text(f"{manager}: {tmp_path}/needs.yml\n")
    with pytest.raises(ValueError, match=rf"^{manager}.* looks like a secret"):
        refuse_secrets(read_runtime_env(tmp_path / "env.yaml"))


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
