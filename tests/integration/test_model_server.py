"""A tracker that asks for a password, and a model that MLflow serves from it, as people meet them."""

import base64
import json
import shlex
import subprocess
import urllib.request
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from captioning.evaluation.captioner import Captioner
from captioning.generation.config import GenerationConfig
from cluster.config import StorageConfig, TrackingConfig
from cluster.evaluation.evaluate import load_captioner
from cluster.registry.models import resolve_model
from cluster.registry.safe_loading import require_safe
from cluster.tracking.access import access_refusal
from cluster.tracking.client import connect
from shards.synthetic.scenes import draw_scene, render
from tests.jobs.test_cli import run_in_process
from tests.support.command_line import captioning
from tests.support.mlflow_servers import ADMIN, BIN, cluster_of_user, post, served, tracker
from tests.support.pictures import encoded
from tests.support.repository import blocks

pytest.importorskip("flask_wtf", reason="MLflow's basic-auth app needs Flask-WTF: install the extra test")
pytestmark = pytest.mark.cluster

SMALL = (
    "--model.backbone squeezenet1_1 --model.weights none --model.image-size-px 64 --model.hidden-size 16 "
    "--training.num-epochs 0.2 --training.batch-size 12 --cluster.num-workers 1"
)
SCENE = encoded(render(draw_scene(0, 1, size_px=64)))
READER, READER_PASSWORD = "reader", "secret-of-a-reader"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with tracker(tmp_path_factory.mktemp("tracker")) as started:
        body = json.dumps({"username": READER, "password": READER_PASSWORD}).encode()
        token = base64.b64encode(f"{ADMIN}:{started.password}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}"}
        url = f"{started.uri}/api/2.0/mlflow/users/create"
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30).close()
        yield started


@pytest.fixture(scope="module")
def home(server, drawn_shards, tmp_path_factory):
    """Return a home folder with a run that was trained and registered by a user with a password."""
    home = tmp_path_factory.mktemp("home")
    (home / "photo.jpg").write_bytes(SCENE)
    commands = (
        f"train --shards {drawn_shards} --name first {SMALL} --home {home}",
        f"register {home}/training/first captioner --beam-size 2 --home {home} --json",
    )
    with cluster_of_user(server):
        answers = [captioning(*shlex.split(command)) for command in commands]
    said = "\n".join(answer.told for answer in answers)
    assert [answer.code for answer in answers] == [0, 0], said
    (home / "said.txt").write_text(said)
    return home


@pytest.fixture(scope="module")
def address(server, home):
    """Return where MLflow serves the challenger."""
    command = [BIN / "mlflow", "models", "serve", "--model-uri", "models:/captioner@challenger"]
    command += ["--env-manager", "local", "--port"]
    with served(command, server.environment(), home / "served.log") as address:
        yield address


@pytest.fixture
def as_user(server, monkeypatch):
    """Return a function that makes this process a user of the tracker."""

    def become(user=None, password=None):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        for name, value in (("MLFLOW_TRACKING_USERNAME", user), ("MLFLOW_TRACKING_PASSWORD", password)):
            monkeypatch.delenv(name, raising=False)
            if value:
                monkeypatch.setenv(name, value)

    return become


COMMANDS = {
    "evaluate": "evaluate models:/captioner@challenger --shards {shards}",
    "caption": "caption {home}/photo.jpg --model models:/captioner/1",
    "register": "register runs:/{run} captioner --beam-size 2",
    "promote": "promote captioner --shards {shards}",
    "models": "models captioner",
    "history": "history captioner",
    "lineage": "lineage models:/captioner/1",
    "rollback": "rollback captioner",
    "serve": "serve models:/captioner@challenger --dry-run",
}
CHANGING = ("evaluate", "register", "promote")


@pytest.fixture
def run(server, home, drawn_shards):
    """Return a function that runs a command of the table in this process, and returns its code."""
    run_id = json.loads((home / "training" / "first" / "run.json").read_text())["mlflow_run_id"]

    def run(command):
        arguments = shlex.split(COMMANDS[command].format(shards=drawn_shards, home=home, run=run_id))
        return run_in_process([*arguments, "--home", str(home)])

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_a_user_says_what_to_set(as_user, run, capsys, command):
    as_user()
    code, said = run(command), capsys.readouterr().err
    assert (code, said) == (
        2,
        "error: MLflow refuses requests without a user (401); set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD to the credentials of a user of the server\n",
    )


def test_training_without_a_user_ends_before_it_begins(as_user, drawn_shards, home):
    as_user()
    command = f"train --shards {drawn_shards} --name other {SMALL} --home {home}"
    answer = captioning(*shlex.split(command))
    *before, last = answer.told.splitlines()
    assert (answer.code, before[-1]) == (2, "connecting to the tracker"), answer.told
    assert "(401); set MLFLOW_TRACKING_USERNAME" in last


def test_a_wrong_password_is_not_repeated(as_user, run, capsys):
    as_user(ADMIN, "wrong-secret")
    code, said = run("models"), capsys.readouterr().err
    assert (code, said.startswith("error: MLflow refuses user admin with this password (401); set ")) == (2, True)
    assert "wrong-secret" not in said


@pytest.mark.parametrize("command", CHANGING)
def test_a_command_without_permission_says_whom_to_ask(as_user, run, capsys, command):
    as_user(READER, READER_PASSWORD)
    code, said = run(command), capsys.readouterr().err
    last = said.splitlines()[-1]
    assert (code, last.startswith("error: MLflow forbids user reader this request")) == (2, True), said
    assert "(403); ask its administrator for the permission, or set MLFLOW_TRACKING_USERNAME and" in last


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in (*CHANGING, "rollback")])
def test_reading_needs_no_more_than_reading_permission(as_user, run, command):
    as_user(READER, READER_PASSWORD)
    assert run(command) == 0


@pytest.mark.parametrize("command", ["caption", "evaluate", "lineage", "register"])
def test_a_command_works_for_a_user_with_a_password(as_user, server, run, capsys, command):
    as_user(ADMIN, server.password)
    assert run(command) == 0, capsys.readouterr().err


def expected(server, home, as_user, beam_size):
    as_user(ADMIN, server.password)
    client = connect(TrackingConfig(), StorageConfig(home=home))
    folder = resolve_model("models:/captioner/1", client).folder
    captioner: Captioner = load_captioner(folder, generation=GenerationConfig(beam_size=beam_size), batch_size=1)
    return next(captioner.caption([SCENE])).captions


def text(content):
    return base64.b64encode(content).decode()


def test_the_served_model_captions_a_batch_as_the_checkpoint_does(address, server, home, as_user):
    rows = [{"image": text(SCENE)}, {"image": text(b"no image")}, {"image": "not base64!"}, {"image": None}]
    status, answer = post(address, {"dataframe_records": rows})
    (first, *others), (wanted, *_) = answer["predictions"], expected(server, home, as_user, beam_size=2)
    assert (status, first["caption"], first["error"]) == (200, wanted, None)
    assert [(one["caption"], one["log_probability"], bool(one["error"])) for one in others] == [(None, None, True)] * 3


def test_a_request_may_ask_for_several_captions(address, server, home, as_user):
    body = {"dataframe_records": [{"image": text(SCENE)}], "params": {"beam": 4, "num_captions": 3}}
    (answer,) = post(address, body)[1]["predictions"]
    assert tuple(answer["captions"]) == expected(server, home, as_user, beam_size=4)[:3]


@pytest.mark.parametrize("body", [{"inputs": {"image": [text(SCENE)]}}, {"instances": [{"image": text(SCENE)}]}])
def test_the_other_forms_of_a_request_are_answered(address, body):
    status, answer = post(address, body)
    assert (status, answer["predictions"][0]["error"]) == (200, None)


def test_a_parameter_out_of_bounds_is_the_clients_fault(address):
    status, answer = post(address, {"dataframe_records": [{"image": text(SCENE)}], "params": {"beam": 99}})
    assert (status, "beam cannot be 99; use 1 to 20" in answer["message"]) == (400, True)


@pytest.mark.parametrize("column", ["path", "url"])
def test_the_served_model_reads_neither_paths_nor_urls(address, home, server, column):
    value = {"path": str(home / "photo.jpg"), "url": f"{server.uri}/health"}[column]
    status, answer = post(address, {"dataframe_records": [{column: value}]})
    assert (status, "Model is missing inputs ['image']" in answer["message"]) == (400, True)


def test_the_example_that_is_stored_with_the_version_is_answered(address, server, home, as_user):
    as_user(ADMIN, server.password)
    client = connect(TrackingConfig(), StorageConfig(home=home))
    stored = require_safe(client.get_model_version("captioner", "1"), client)
    example = json.loads(Path(stored.download_artifacts("serving_input_example.json", str(home))).read_text())
    status, answer = post(address, example)
    assert (status, answer["predictions"][0]["error"]) == (200, None)


def test_readmes_request_is_answered(address, home):
    (block,) = blocks("sh")
    request = block.partition("\n")[2].replace("http://127.0.0.1:5001", address)
    answer = subprocess.run(["bash", "-c", request], cwd=home, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["predictions"][0]["error"] is None


def test_serve_answers_for_the_version(server, home):
    command = [BIN / "captioning", "serve", "models:/captioner@challenger", "--home", home, "--port"]
    environment = server.environment() | {"PATH": "/usr/bin:/bin"}
    with served(command, environment, home / "serve.log") as address:
        status, answer = post(address, {"dataframe_records": [{"image": text(SCENE)}]})
    assert (status, answer["predictions"][0]["error"]) == (200, None)


def test_no_secret_is_written_anywhere(server, home, address):
    secrets = [server.password.encode(), READER_PASSWORD.encode()]
    secrets += [base64.b64encode(f"{ADMIN}:{server.password}".encode())]
    files = [path for folder in (home, server.folder) for path in folder.rglob("*") if path.is_file()]
    found = [path.name for path in files if any(secret in path.read_bytes() for secret in secrets)]
    assert (len(files) > 20, found) == (True, [])


def test_other_refusals_are_left_to_themselves():
    assert access_refusal(ValueError("x")) is None
    assert access_refusal(MlflowException("x")) is None
