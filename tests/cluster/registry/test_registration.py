"""A failed registration leaves no version, and no version with a pickle is read."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from mlflow.exceptions import MlflowException

from captioning.generation.config import GenerationConfig
from captioning.serving.image_input import ImageInputConfig
from cluster.config import StorageConfig, TrackingConfig
from cluster.git import git_state
from cluster.registry.history import history_name
from cluster.registry.logged_models import record_of
from cluster.registry.models import resolve_model
from cluster.registry.registration import register
from cluster.tracking.client import connect
from tests.jobs.test_cli import run_in_process
from tests.support.registered_versions import add_version, make_champion, servable
from tests.support.repository import ROOT


@pytest.fixture(scope="module")
def home(tiny_run):
    return tiny_run.parent.parent


@pytest.fixture(scope="module")
def client(home):
    return connect(TrackingConfig(), StorageConfig(home=home))


def versions(name, client):
    return list(client.search_model_versions(f"name = '{name}'"))


def test_files_that_do_not_arrive_leave_neither_version_nor_logged_model(client, model, name, home):
    artifacts = home / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    aside = shutil.move(artifacts / "models", artifacts / "aside") if (artifacts / "models").exists() else None
    experiment = client.get_run(model.mlflow_run_id).info.experiment_id
    before = [one.model_id for one in client.search_logged_models([experiment])]
    (artifacts / "models").write_text("no folder")
    try:
        with pytest.raises(OSError, match="models"):
            register(model, name, client)
    finally:
        (artifacts / "models").unlink()
        if aside:
            shutil.move(aside, artifacts / "models")
    after = [one.model_id for one in client.search_logged_models([experiment])]
    assert (versions(name, client), after) == ([], before)


def test_a_version_that_could_not_become_the_challenger_is_finished_by_the_same_command(client, model, name, home):
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON registered_model_aliases BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        database.commit()
        try:
            with pytest.raises(MlflowException, match="no"):
                register(model, name, client)
        finally:
            database.execute("DROP TRIGGER refuse")
            database.commit()
    (begun,) = versions(name, client)
    assert (client.get_registered_model(name).aliases, register(model, name, client).version) == ({}, begun.version)
    assert client.get_registered_model(name).aliases == {"challenger": begun.version}


def test_a_version_is_resolved_with_the_search_that_it_was_registered_with(client, model, name, caplog):
    search = GenerationConfig(beam_size=4, groups=2, group_penalty=0.25, min_words=3, no_repeat_ngram=2)
    version = register(model, name, client, generation=search).version
    assert resolve_model(f"models:/{name}/{version}", client).generation == search
    client.set_model_version_tag(name, version, "generation.groups", "three")
    assert resolve_model(f"models:/{name}/{version}", client).generation == GenerationConfig(no_repeat_ngram=0)
    assert "the settings of the search are not those that a release records (" in caplog.text


def test_more_words_than_a_model_writes_are_refused(client, model, name):
    with pytest.raises(ValueError, match="min_words 50 is more than the 8 words at which captions are cut"):
        register(model, name, client, generation=GenerationConfig(min_words=50))


def test_a_beam_that_no_request_may_ask_for_is_refused(client, model, name):
    with pytest.raises(ValueError, match="beam size 21 is out of range; use 1 to 20"):
        register(model, name, client, generation=GenerationConfig(beam_size=21))


def test_a_models_history_is_no_model(client, model, name):
    make_champion(name, client)
    with pytest.raises(ValueError, match=r"\.history' is for the history of another model; use one"):
        register(model, history_name(name), client)


def test_the_commit_of_the_code_that_serves_is_noted(client, model, name):
    record = record_of(register(model, name, client), client)
    wanted = git_state(ROOT)
    assert (record["registered_git_commit"], record["registered_git_dirty"]) == tuple(wanted.values())


def test_a_version_keeps_what_its_run_was_trained_on(client, model, name):
    record = record_of(register(model, name, client, intake=ImageInputConfig(allow_urls="public")), client)
    lineage = model.description.lineage
    assert {key: record[key] for key in lineage} == lineage


@pytest.mark.cluster  # MLflow in a process of its own takes seconds
def test_registering_needs_no_torch_which_takes_seconds_to_load(tiny_run, home, name):
    code = (
        "import atexit, sys; from jobs.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        f"sys.argv = ['captioning', 'register', {str(tiny_run)!r}, {name!r}, '--home', {str(home)!r}]; main()"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "False\n"), answer.stderr


@pytest.fixture(scope="module")
def pickled(client, tiny_run, tmp_path_factory):
    """Return a version with a pickle, and the path of the file that loading the pickle would write."""
    folder = tmp_path_factory.mktemp("pickled")
    note = folder / "loaded"
    source = servable(tiny_run / "checkpoints" / "step-00000005-attempt-1", folder / "model")
    (folder / "model" / "python_model.pkl").write_bytes(f"cpathlib\nPath\n(S'{note}'\ntR.".encode())
    add_version("pickled", client, source)
    return note


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "{picture}", "--model", "models:/pickled@challenger"],
        ["evaluate", "models:/pickled/1", "--shards", "{shards}"],
        ["register", "models:/pickled/1", "again"],
        ["promote", "pickled", "--shards", "{shards}"],
        ["serve", "models:/pickled/1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_version_with_a_pickle_is_refused_in_one_line(pickled, arguments, home, drawn_shards, capsys):
    values = {"picture": next(drawn_shards.parent.rglob("*.jpg")), "shards": drawn_shards}
    code = run_in_process([*(argument.format(**values) for argument in arguments), "--home", str(home)])
    complaint = "error: pickled version 1 holds python_model.pkl, a pickle, which can run any code; register its"
    said = capsys.readouterr().err
    assert (code, said.startswith(complaint), said.count("\n"), pickled.exists()) == (2, True, 1, False), said


@pytest.mark.parametrize("file", ["model/pytorch_model.bin", "artifacts/checkpoint/weights.PT", "a.pkl.gz", "b.joblib"])
def test_pickles_go_by_many_names(client, tiny_run, tmp_path, name, file):
    source = servable(tiny_run / "checkpoints" / "step-00000005-attempt-1", tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    version = add_version(name.replace("/", "-"), client, source)
    with pytest.raises(ValueError, match=f"holds {file}, a pickle"):
        resolve_model(f"models:/{name.replace('/', '-')}/{version}", client)


def test_a_version_of_something_else_is_named(client, tmp_path, name):
    (tmp_path / "MLmodel").write_text("")
    version = add_version(name, client, str(tmp_path))
    with pytest.raises(ValueError, match=r"holds no artifacts/checkpoint/checkpoint\.json; use a version that capt"):
        resolve_model(f"models:/{name}/{version}", client)


def test_a_version_of_a_newer_format_is_refused_by_its_number(client, model, name):
    version = register(model, name, client).version
    client.set_model_version_tag(name, version, "format_version", "2")
    message = rf"{name} version {version} has format version 2, this release reads 1; use the release that wrote it"
    with pytest.raises(ValueError, match=message):
        resolve_model(f"models:/{name}/{version}", client)


def test_only_registered_models_are_served(home, capsys):
    assert run_in_process(["serve", "runs/r", "--home", str(home)]) == 2
    assert "error: runs/r is not the address of a registered model; use models:/NAME@alias" in capsys.readouterr().err


def test_no_processes_serve_nothing(home, capsys):
    assert run_in_process(["serve", "models:/a/1", "--num-workers", "0", "--home", str(home)]) == 2
    assert "error: num_workers 0 is out of range; use 1 to 1000" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["a"], ["a", "b", "--from", "models:/a/1"], ["a", "--from", "models:/a/1"], []],
    ids=["no name", "both", "no name, and a version", "nothing"],
)
def test_one_model_is_registered(arguments, home, capsys):
    assert run_in_process(["register", *arguments, "--home", str(home)]) == 2
    assert "register needs either MODEL and NAME, or --from models:/NAME/VERSION alone" in capsys.readouterr().err


def test_what_is_no_registered_version_is_not_registered_again(home, capsys):
    assert run_in_process(["register", "--from", "runs:/a", "--home", str(home)]) == 2
    assert "--from runs:/a is not a registered version; use models:/NAME/VERSION" in capsys.readouterr().err


def test_a_version_of_an_earlier_release_is_brought_over_with_its_scores(client, tiny_run, tmp_path, name, home):
    source = servable(tiny_run / "checkpoints" / "step-00000005-attempt-1", tmp_path)
    version = add_version(name, client, source)
    summary = '{"scores": {"CIDEr-D": 0.25}, "step": 5, "shards_digest": "d"}'
    client.set_model_version_tag(name, version, "evaluation.test", summary)
    assert run_in_process(["register", "--from", f"models:/{name}/{version}", "--home", str(home)]) == 0
    found = client.get_model_version_by_alias(name, "challenger")
    record = record_of(found, client)
    assert (found.version, found.source.startswith("models:/m-"), record["step"]) == (2, True, "5")
    assert record["evaluation.test"].startswith('{"scores": {"CIDEr-D": 0.25}')
