"""``captioning ui``: which server it starts, and that the server has the runs of the home folder."""

import json
import socket
import sys
import urllib.request

import pytest

from tests.support.mlflow_servers import running, wait_until_it_answers
from tests.support.ports import free_port


def test_it_says_what_it_would_start(captioning, home):
    code, printed, said = captioning("ui", "--home", home.home, "--port", "5001", "--dry-run", "--json")
    found = json.loads(printed)
    assert (code, found["address"], said) == (
        0,
        "http://127.0.0.1:5001",
        "MLflow's pages would be at http://127.0.0.1:5001/#/experiments/0/runs?workflowType=machine_learning\n",
    )
    assert found["command"][3:6] == ["server", "--backend-store-uri", f"sqlite:///{home.home}/mlflow.db"]


def test_a_home_without_runs_is_bad_input_and_stays_empty(captioning, tmp_path):
    code, _, said = captioning("ui", "--home", tmp_path)
    assert (code, said.startswith(f"error: there is no tracker in {tmp_path}"), list(tmp_path.iterdir())) == (
        2,
        True,
        [],
    )


def test_a_port_in_use_is_bad_input(captioning, home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, said = captioning("ui", "--home", home.home, "--port", port)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"error: port {port} of 127.0.0.1 cannot be used (Address already in use")


@pytest.mark.cluster
def test_the_server_has_the_experiments_of_the_home_folder(home, client, tmp_path):
    name = "seen in the pages"
    client.create_experiment(name)
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "jobs", "ui", "--home", home.home, "--port", port]
    with running(command, None, log) as process:
        wait_until_it_answers(f"http://127.0.0.1:{port}/health", process, log)
        search = (
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name.replace(' ', '%20')}"
        )
        with urllib.request.urlopen(search, timeout=30) as answer:
            found = json.load(answer)["experiment"]["name"]
    assert found == name
