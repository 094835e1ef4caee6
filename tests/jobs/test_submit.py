"""``captioning submit`` up to the point where it sends anything: its refusals and its dry runs."""

import json
from types import SimpleNamespace

import pytest
import yaml

from cluster.resources.gcs import Node
from cluster.submission.dashboard import DashboardSnapshot
from cluster.submission.job import JobState
from jobs.cli import JOBS, find_job, run_job
from jobs.console.parsing import parse_as_written
from jobs.submit import _conclude
from tests.support.http_server import answering
from tests.support.ray_head import code_that
from tests.support.repository import ROOT


@pytest.fixture
def submit(tmp_path, monkeypatch, capsys):
    """Return a function that submits without a cluster, and returns (exit code, standard output, standard error)."""
    for name in ("RAY_API_SERVER_ADDRESS", "CAPTIONING_HOME", "MLFLOW_TRACKING_URI", "CAPTIONING_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            run_job("submit", arguments)
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    return run


TRAIN = ("train", "--shards", "/mnt/shards", "--home", "/mnt/runs", "--name", "big")


def test_a_dry_run_shows_the_exact_request(submit):
    code, shown, _ = submit("--dry-run", "--json", *TRAIN)
    request = json.loads(shown)
    assert (code, request["id"], request["entrypoint"]) == (
        0,
        "big-<n>",
        "python -m jobs.cli train --shards /mnt/shards --home /mnt/runs --name big",
    )
    assert request["metadata"]["captioning.git_commit"] == request["runtime_env"]["env_vars"]["CAPTIONING_GIT_COMMIT"]
    assert {"jobs/cli.py", "captioning/pages/templates/gallery.html.jinja"} & set(request["code"]["files"])
    assert "tests/jobs/test_submit.py" not in request["code"]["files"]


def test_a_dry_run_says_it_to_people_too(submit):
    code, _, told = submit("--dry-run", *TRAIN)
    starts = ["would submit job big-<n> to no cluster", "command: python -m jobs.cli train", "code:  ", "left out: "]
    assert (code, [one for one in starts if one not in told]) == (0, []), told


def test_flags_before_the_job_are_ours_and_those_after_it_are_the_jobs(submit):
    shown = submit("--dry-run", "--json", "--name", "mine", "--retries=2", *TRAIN, "--json", "--dry-run")[1]
    request = json.loads(shown)
    assert (request["id"], request["entrypoint"].endswith("--name big --json --dry-run")) == ("mine-<n>", True)


def test_other_jobs_are_called_after_themselves(submit):
    assert json.loads(submit("--dry-run", "--json", "convert", "/mnt/coco", "/mnt/shards")[1])["id"] == "convert-<n>"


def test_small_files_of_the_current_folder_travel(submit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("storage: {home: /mnt/runs}\n")
    shown = submit("--dry-run", "--json", "--working-dir", f"{ROOT}", "train", "--config", "run.yaml")[1]
    assert "run.yaml" in json.loads(shown)["code"]["files"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--shards", "/s"],
            "error: home runs is relative to a folder of this machine; give it as the cluster's",
        ),
        (["train", "--shards", "s", "--home", "/h"], "error: shards s is relative to a folder of this machine"),
        (
            ["evaluate", "runs/training/big", "--shards", "/s", "--home", "/h"],
            "error: model runs/training/big is relative",
        ),
        (
            ["--dry-run", "caption", "a.jpg", "--model", "models:/m@a", "--home", "/h"],
            "error: inputs a.jpg is relative",
        ),
        (
            ["train", "--shards", "/s", "--home", "/h", "--checkpoints", "runs/c"],
            "error: checkpoints runs/c is relative to a folder of this machine; give it as the cluster's nodes see it",
        ),
        (["train", "--name", "a/b"], "error: name 'a/b' cannot be a folder's"),
        (["trian"], "error: trian cannot be submitted; use one of demo, download, convert"),
        (["submit", "train"], "error: submit cannot be submitted"),
        (["--retries", "-1", *TRAIN], "error: retries -1 is negative; use 0 or more"),
        (["--retries", "1", "--no-wait", *TRAIN], "error: --retries has no effect on a job that is not followed"),
        (["--working-dir", "/", *TRAIN], "error: / has no code to run: it lacks captioning, cluster, jobs, shards"),
        (["--env", "HF_TOKEN", *TRAIN], "error: HF_TOKEN looks like a secret"),
        (["--runtime-env", "/none.yaml", *TRAIN], "error: --runtime-env /none.yaml does not exist"),
        (TRAIN, "error: no cluster was given; use --address http://HOST:8265"),
    ],
    ids=lambda value: " ".join(value)[:40] if not isinstance(value, str) else "",
)
def test_bad_input_is_refused_before_anything_is_sent(submit, arguments, message):
    code, _, told = submit(*arguments)
    assert (code, told.splitlines()[-1].startswith(message)) == (2, True), told


def test_a_cluster_that_does_not_answer_is_a_failure(submit):
    code, _, told = submit("--address", "http://127.0.0.1:9", *TRAIN)
    assert (code, told.startswith("error: no Ray cluster answers at http://127.0.0.1:9")) == (1, True), told


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, "no"), "error: what answers at {address} is not Ray's job server; use the dashboard's address"),
        ((200, {"ray_version": "2.9.0"}), "error: the cluster at {address} runs Ray 2.9.0, and this code needs Ray "),
        (
            (401, "no"),
            "error: the cluster at {address} requires a token; set RAY_AUTH_MODE=token, and ",
        ),
    ],
    ids=["not Ray", "another version", "token"],
)
def test_a_server_that_is_none_of_ours_is_refused(submit, monkeypatch, answer, message):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with answering({"/api/version": answer}) as address:
        code, _, told = submit("--address", address, *TRAIN)
    assert (code, told.splitlines()[-1].startswith(message.format(address=address))) == (2, True), told


def test_from_a_folder_without_code_the_code_that_runs_here_travels(submit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, shown, _ = submit("--dry-run", "--json", *TRAIN)
    assert (code, json.loads(shown)["code"]["folder"]) == (0, f"{ROOT}")


def test_code_outside_of_a_checkout_travels_without_a_commit(submit, tmp_path):
    code, shown, _ = submit("--dry-run", "--json", "--working-dir", f"{code_that('', tmp_path / 'code')}", *TRAIN)
    assert (code, json.loads(shown)["metadata"]["captioning.git_commit"]) == (0, "unknown")


def test_a_dry_run_of_the_job_is_a_job_of_its_own(submit):
    request = json.loads(submit("--dry-run", "--json", *TRAIN, "--dry-run")[1])
    settings = json.loads(request["metadata"]["captioning.settings"])
    assert (request["id"], settings["dry_run"]) == ("big-dry-run-<n>", "True")


@pytest.mark.parametrize(
    ("node", "hint"),
    [
        ("192.0.2.77", " ({place} exists on this machine, which is not a node of the cluster; give a path that its"),
        ("127.0.0.1", ""),
    ],
    ids=["from outside", "on a node"],
)
def test_a_path_that_only_this_machine_sees_is_named(tmp_path, log_lines, node, hint):
    told = parse_as_written(find_job("train"), ["--shards", f"{tmp_path}"])
    server = SimpleNamespace(dashboard=lambda: DashboardSnapshot([Node("n", node, {}, {})], "", may_grow=False))
    job = JobState(id="a-1", status="FAILED", entrypoint="", message=f"{tmp_path}/m.json is not there", exit_code=2)
    with pytest.raises(SystemExit):
        _conclude(server, job, told, as_json=False)
    expected = f"error: job a-1 ended as FAILED: {tmp_path}/m.json is not there{hint.format(place=tmp_path)}"
    assert log_lines()[-1].startswith(expected)
    assert log_lines()[-1].endswith(")" if hint else "there")


def test_a_misspelt_flag_of_the_job_is_refused_here(submit):
    code, _, told = submit("train", "--shrads", "/mnt/shards")
    assert (code, "captioning train --help" in told) == (2, True), told


@pytest.mark.parametrize("job", ["jobs", "status", "logs", "stop"])
def test_jobs_that_look_at_a_cluster_are_not_submitted_to_it(submit, job):
    assert (job in JOBS, submit(job)[0]) == (True, 2)


def test_looking_at_a_job_s_settings_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = parse_as_written(find_job("convert"), ["coco", "shards"])
    assert (f"{told.settings.source}", list(tmp_path.iterdir())) == ("coco", [])


def test_a_job_after_two_dashes_is_the_same(submit):
    answers = [json.loads(submit("--dry-run", "--json", *dashes, *TRAIN)[1]) for dashes in ((), ("--",))]
    assert answers[0]["entrypoint"] == answers[1]["entrypoint"]


def test_a_configuration_of_the_job_is_none_of_ours(submit):
    code, _, told = submit("--dry-run", "train", "--config", "nowhere.yaml")
    assert (code, told) == (2, "error: --config nowhere.yaml does not exist; check its name\n")


def test_the_printed_configuration_holds_that_of_the_job_as_the_job_prints_it(submit):
    ours, jobs = yaml.safe_load_all(submit("--print-config", *TRAIN, "--training.seed", "3")[1])
    alone = yaml.safe_load(submit(*TRAIN, "--training.seed", "3", "--print-config")[1])
    assert (ours["job"], jobs, jobs["training"]["seed"]) == ("train", alone, 3)


@pytest.mark.parametrize("arguments", [["--print-config"], ["--dry-run"], []])
def test_mistakes_of_the_job_are_told_with_ours(submit, arguments):
    code, _, told = submit(*arguments, "--retries", "-1", *TRAIN, "--training.batch-size", "0")
    mistakes = ["retries -1 is negative", "training.batch_size 0 is not positive"]
    assert (code, [one in line for one, line in zip(mistakes, told.splitlines(), strict=True)]) == (2, [True, True])
