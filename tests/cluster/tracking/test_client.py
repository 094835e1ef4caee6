import re
import uuid

import pytest

from cluster.config import TrackingConfig
from cluster.tracking.client import connect, create_run, quoted, set_tags, tracking_uri
from cluster.tracking.datasets import dataset_input
from cluster.tracking.experiment import experiment_id
from tests.support.case_table import each_case


@pytest.fixture
def run_id(client, home):
    experiment = experiment_id(client, TrackingConfig(), home)
    return create_run(
        client,
        experiment,
        key=uuid.uuid4().hex,
        name="r",
        parameters={"model.hidden_size": 512, "model.trainable_from": None},
        tags={"kind": "test"},
        datasets=[dataset_input("shards", "/data/shards", "d" * 64, context="training", index="i")],
        note="a run of tests",
    )


def test_a_run_that_a_killed_driver_made_is_found_by_its_key(client, home):
    experiment = experiment_id(client, TrackingConfig(), home)
    made = [
        create_run(client, experiment, key=key, name="r", parameters={}, tags={}) for key in ("one", "one", "other")
    ]
    assert (made[0] == made[1], made[1] == made[2]) == (True, False)


def test_settings_become_parameters(client, run_id):
    assert client.get_run(run_id).data.params == {"model.hidden_size": "512", "model.trainable_from": "None"}


def test_the_shard_set_is_a_dataset_input_with_its_digest_at_mlflows_limit(client, run_id):
    (found,) = client.get_run(run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.tags[0].value) == ("shards", "d" * 36, "training")


def test_artifacts_of_the_embedded_tracker_lie_in_the_home_folder(client, run_id, home):
    assert client.get_run(run_id).info.artifact_uri.startswith((home.home / "artifacts").as_uri())


def test_mlflows_pages_open_on_the_runs(client, run_id):
    experiment = client.get_experiment(client.get_run(run_id).info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_run_says_who_made_it_and_with_what(client, run_id):
    tags = client.get_run(run_id).data.tags
    assert (bool(tags["mlflow.user"]), tags["mlflow.source.name"]) == (True, "captioning")
    assert tags["mlflow.note.content"] == "a run of tests"


def test_a_user_without_a_name_makes_runs_too(client, home, monkeypatch):
    def nobody():
        raise KeyError("uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    experiment = experiment_id(client, TrackingConfig(), home)
    made = create_run(client, experiment, key="nobody", name="r", parameters={}, tags={})
    assert client.get_run(made).data.tags["mlflow.user"] == "unknown"


@each_case(
    ("text", "value"),
    [("a", "'a'"), ("o'neil", '"o\'neil"'), ('"', "'\"'"), ("'\"", None), ("a\\", None), ("\n", None)],
)
def test_a_value_of_a_filter_is_quoted_if_it_can_be(text, value):
    assert quoted(text) == value


def test_tags_are_set(client, run_id):
    set_tags(client, run_id, {"kind": "other"})
    assert client.get_run(run_id).data.tags["kind"] == "other"


def test_the_address_is_the_flag_then_the_environment_then_the_home(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env:1")
    chosen = [tracking_uri(TrackingConfig(uri="http://flag:1"), home), tracking_uri(TrackingConfig(), home)]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    chosen.append(tracking_uri(TrackingConfig(), home))
    assert chosen == ["http://flag:1", "http://env:1", f"sqlite:///{home.home}/mlflow.db"]


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_a_database_below_a_tilde_is_in_the_users_home(home, tmp_path, monkeypatch, scheme):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}:///~/m.db")
    chosen = [tracking_uri(TrackingConfig(uri="sqlite:///~/a.db"), home), tracking_uri(TrackingConfig(), home)]
    assert chosen == [f"sqlite:///{tmp_path}/a.db", f"{scheme}:///{tmp_path}/m.db"]


def test_a_server_that_does_not_answer_is_named(home):
    with pytest.raises(ConnectionError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer .*start the server"):
        connect(TrackingConfig(uri="http://127.0.0.1:9"), home)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host", "is not an MLflow address; use http"),
        ("ftp+x://host", "is not an MLflow address; use http"),
        ("./mlruns", "is a folder, and MLflow keeps no registry in files any more; use http"),
        ("file:///mnt/mlruns", "is a folder, and"),
        ("databricks", "is Databricks, whose registry is not supported; use"),
        ("databricks://profile", "is Databricks"),
        ("http://", "has no host; use http"),
        ("http://[::1", "cannot be one (Invalid IPv6 URL); use http"),
        ("http://host:99999", "cannot be one (Port out of range 0-65535); use http"),
        ("https://host:x", "cannot be one (Port could not be cast to integer value as 'x'); use http"),
        ("http://my host:5000", "has a space in its host; use http"),
        ("sqlite://m.db", "has two slashes; use sqlite:///FILE, or"),
        ("sqlite:///", "names no file; use sqlite:///FILE, or"),
        ("mysql+nodriver://host/db", "is not an address of a database; use"),
        ("mssql+pymssql://host/db", "needs the Python package pymssql, which is not installed; install it, or use"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_the_reason(home, uri, message):
    with pytest.raises(ValueError, match=f"^(the database of )?tracking address {re.escape(f'{uri} {message}')}"):
        connect(TrackingConfig(uri=uri), home)


@pytest.mark.parametrize("uri", ["http://me:secret@127.0.0.1:9", "postgresql://host/db?user=me&password=secret"])
def test_credentials_in_the_variable_are_refused_before_anything_is_asked(home, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=r"^MLFLOW_TRACKING_URI .* contains credentials, .* leave them out, and set"):
        connect(TrackingConfig(), home)
