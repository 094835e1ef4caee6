import uuid

import pytest

from cluster.config import TrackingConfig, without_credentials
from cluster.tracking.client import connect, create_run, experiment_id, set_tags, tracking_uri


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
        dataset=("shards", "/data/shards", "d" * 64),
    )


def test_a_run_that_a_killed_driver_made_is_found_by_its_key(client, home):
    experiment = experiment_id(client, TrackingConfig(), home)
    made = [
        create_run(client, experiment, key=key, name="r", parameters={}, tags={}, dataset=("s", "s", "d"))
        for key in ("one", "one", "other")
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


def test_a_user_without_a_name_makes_runs_too(client, home, monkeypatch):
    def nobody():
        raise KeyError("uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    experiment = experiment_id(client, TrackingConfig(), home)
    made = create_run(client, experiment, key="nobody", name="r", parameters={}, tags={}, dataset=("s", "s", "d"))
    assert client.get_run(made).data.tags["mlflow.user"] == "unknown"


def test_the_experiment_is_made_once(client, home):
    assert experiment_id(client, TrackingConfig(), home) == experiment_id(client, TrackingConfig(), home)


def test_tags_are_set(client, run_id):
    set_tags(client, run_id, {"start_1.cluster": "2 workers"})
    assert client.get_run(run_id).data.tags["start_1.cluster"] == "2 workers"


def test_the_address_is_the_flag_then_the_environment_then_the_home(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env:1")
    chosen = [tracking_uri(TrackingConfig(uri="http://flag:1"), home), tracking_uri(TrackingConfig(), home)]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    chosen.append(tracking_uri(TrackingConfig(), home))
    assert chosen == ["http://flag:1", "http://env:1", f"sqlite:///{home.home}/mlflow.db"]


def test_a_server_that_does_not_answer_is_named(home):
    with pytest.raises(ConnectionError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer .*start the server"):
        connect(TrackingConfig(uri="http://127.0.0.1:9"), home)


@pytest.mark.parametrize("uri", ["ftp://host", "somewhere"])
def test_an_address_of_something_else_is_refused(home, uri):
    with pytest.raises(ValueError, match="is not an MLflow address"):
        connect(TrackingConfig(uri=uri), home)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host/x", "https://host/x"),
        ("postgresql://u:p@ss/word@host/db", "postgresql://host/db"),  # a password may hold anything
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_credentials_are_left_out(uri, shown):
    assert without_credentials(uri) == shown


def test_a_server_that_does_not_answer_is_named_without_credentials(home):
    with pytest.raises(ConnectionError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        connect(TrackingConfig(uri="http://me:secret@127.0.0.1:9"), home)
