"""``captioning launch``: where manifests are written, and that the MLflow server starts as its manifest says."""

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cluster.launch.render import KINDS, render
from cluster.launch.settings import LaunchConfig, installed_versions
from jobs.cli import run_job
from tests.support.ports import free_port

IMAGE = ["--image", "registry.example/captioning:1"]


def launch(*arguments):
    with pytest.raises(SystemExit) as ended:
        run_job("launch", [*arguments])
    return ended.value.code


def expected(kind, **settings):
    return render(kind, LaunchConfig(image=IMAGE[1], **settings), versions=installed_versions())


def test_a_document_is_all_that_is_printed(capsys):
    code = launch("kuberay-cluster", *IMAGE, "--nodes", "1:3", "--gpus-per-node", "2")
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert printed.out == expected("kuberay-cluster", nodes="1:3", gpus_per_node=2)


def test_a_file_is_written_and_written_again(tmp_path):
    file = tmp_path / "Dockerfile"
    codes = [launch("dockerfile", *IMAGE, "--out", str(file)) for _ in range(2)]
    assert (codes, file.read_text()) == ([0, 0], expected("dockerfile"))


def test_a_file_that_someone_changed_is_kept(tmp_path, capsys):
    file = tmp_path / "Dockerfile"
    file.write_text("FROM scratch\n")
    code = launch("dockerfile", *IMAGE, "--out", str(file))
    complaint = capsys.readouterr().err
    assert (code, file.read_text()) == (2, "FROM scratch\n")
    assert f"error: {file} exists with other content; remove it, or choose another --out" in complaint


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    file = tmp_path / "mlflow.yaml"
    code = launch("mlflow", *IMAGE, "--out", str(file), "--dry-run")
    assert (code, file.exists(), f"would write {file}" in capsys.readouterr().err) == (0, False, True)


def test_json_holds_the_document_and_its_versions(capsys):
    code = launch("mlflow", *IMAGE, "--json")
    answer = json.loads(capsys.readouterr().out)
    assert (code, answer["document"]) == (0, expected("mlflow"))
    assert answer["versions"] == installed_versions()._asdict()


def test_an_image_that_no_node_can_pull_is_pointed_out(capsys):
    assert launch("kuberay-cluster") == 0
    assert "names no registry, so that nodes cannot pull it; use --image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], f"error: unknown manifest nothing; use one of {', '.join(KINDS)}\n"),
        (["aws"], "error: aws needs a machine image; "),
        (
            ["kuberay-job"],
            "error: a kuberay-job needs a command to run; give it as --entrypoint 'captioning train ...'\n",
        ),
        (["mlflow", "--nodes", "3:1"], "error: nodes 3:1 is not a number of nodes; "),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments, message, capsys):
    code = launch(*arguments)
    complaint = capsys.readouterr().err
    assert (code, complaint.count("\n"), complaint.startswith(message)) == (2, 1, True), complaint


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Run the container's command with its environment, but another port, folder and database; yield the port."""
    tmp_path = tmp_path_factory.mktemp("served")
    *_, deployment = yaml.safe_load_all(expected("mlflow", name="site"))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    port = free_port()
    command = [str(port) if word == "5000" else word for word in container["command"]]
    variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    variables |= {
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, env=os.environ | variables | {"PATH": path}, cwd=tmp_path, stdout=log, stderr=log
        )
    try:
        health = container["readinessProbe"]["httpGet"]["path"]
        deadline = time.monotonic() + 120
        while status(port, "10.1.2.3", health) != 200 and time.monotonic() < deadline and server.poll() is None:
            time.sleep(0.5)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def status(port, host, path="/api/2.0/mlflow/experiments/search?max_results=1", *, page=None):
    """Return the HTTP status of a request to the server; 0 if it does not answer.

    Args:
        port: port of the server.
        host: value of the request's Host header.
        path: path of the request.
        page: origin of the web page that sends the request, a POST; None for a GET from no page.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        if page:
            headers = {"Host": host, "Origin": page, "Content-Type": "application/json"}
            connection.request("POST", path, '{"experiment_ids": ["0"]}', headers)
        else:
            connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.mark.cluster
def test_the_tracker_answers_under_its_services_names_and_no_others(served):
    names = ["site-mlflow:5000", "site-mlflow.default.svc:5000", "localhost:5000", "elsewhere.example"]
    assert [status(served, name) for name in names] == [200, 200, 200, 403]


@pytest.mark.cluster
def test_the_trackers_own_pages_may_search_and_no_others(served):
    pages = ["http://site-mlflow:5000", "http://site-mlflow.default.svc:5000", "http://elsewhere.example"]
    search = "/ajax-api/2.0/mlflow/runs/search"
    assert [status(served, "site-mlflow:5000", search, page=page) for page in pages] == [200, 200, 403]
