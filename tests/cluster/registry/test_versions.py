import json
from functools import partial
from importlib.metadata import version

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.config import TrackingConfig
from cluster.evaluation.evaluate import Evaluation
from cluster.provenance.lineage import trace
from cluster.registry.evaluations import evaluations_of_run
from cluster.registry.logged_models import record_of
from cluster.registry.models import resolve_model
from cluster.registry.registration import register
from cluster.registry.scores import log_evaluation
from cluster.registry.versions import list_versions
from cluster.runs.record import RunRecord
from cluster.tracking.client import connect
from tests.support.registered_versions import add_version, make_champion


@pytest.fixture(scope="module")
def run_folder(tiny_run):
    return tiny_run


def evaluation(score, *, split="val"):
    return Evaluation(
        split=split,
        shards_digest="d" * 64,
        step=5,
        scores={"CIDEr-D": score},
        captions={1: "a red circle"},
    )


def register_scored(name, client, run_folder, score):
    version = register(resolve_model(str(run_folder), client), name, client).version
    log_evaluation(resolve_model(f"models:/{name}/{version}", client), evaluation(score), client)
    return version


def test_a_run_means_its_best_checkpoint(client, run_folder):
    assert resolve_model(str(run_folder), client).description.step == 5


def test_a_run_id_means_its_best_checkpoint(client, run_folder):
    run_id = json.loads((run_folder / "run.json").read_text())["mlflow_run_id"]
    assert resolve_model(f"runs:/{run_id}", client).description.step == 5


def test_a_checkpoint_folder_means_itself(client, run_folder):
    folder = run_folder / "checkpoints" / "step-00000009-attempt-1"
    assert resolve_model(str(folder), client).description.step == 9


def test_a_registered_model_is_the_challenger(client, run_folder, name):
    created = register(resolve_model(str(run_folder), client), name, client)
    assert resolve_model(f"models:/{name}@challenger", client).version == str(created.version)


def test_a_version_carries_its_lineage(client, run_folder, name):
    record = record_of(register(resolve_model(str(run_folder), client), name, client), client)
    wanted = {"run": "r", "step": "5", "shards_digest": "d" * 64, "git_commit": "c", "package.torch": version("torch")}
    assert {key: record.get(key) for key in wanted} == wanted


def test_scores_of_the_checkpoint_follow_it_into_the_registry(client, run_folder, name):
    log_evaluation(resolve_model(str(run_folder), client), evaluation(0.25), client)
    record = record_of(register(resolve_model(str(run_folder), client), name, client), client)
    assert json.loads(record["evaluation.val"])["scores"] == {"CIDEr-D": 0.25}


def test_scores_that_an_earlier_release_logged_as_a_tag_follow_the_checkpoint_too(client, run_folder, name):
    model = resolve_model(str(run_folder), client)
    summary = evaluation(0.375, split="old").summary()
    client.set_tag(model.mlflow_run_id, "evaluation.old.step-5", json.dumps(summary))
    record = record_of(register(model, name, client), client)
    assert json.loads(record["evaluation.old"])["scores"] == {"CIDEr-D": 0.375}


def test_a_run_has_no_tag_of_json(client, run_folder):
    model = resolve_model(str(run_folder), client)
    log_evaluation(model, evaluation(0.25, split="seen"), client)
    run = client.get_run(model.mlflow_run_id)
    assert [name for name, value in run.data.tags.items() if "seen" in name + value] == []
    assert set(evaluations_of_run(run, 5, client)) >= {"seen"}
    assert "seen" not in evaluations_of_run(run, 9, client)


def test_an_artifact_store_that_does_not_answer_costs_the_run_a_file_and_nothing_else(
    client, run_folder, monkeypatch, caplog
):
    def refuse(*_, **__):
        raise ConnectionError("no route to the store")

    monkeypatch.setattr(MlflowClient, "list_artifacts", refuse)
    monkeypatch.setattr(MlflowClient, "log_dict", refuse)
    model = resolve_model(str(run_folder), client)
    client.set_tag(model.mlflow_run_id, "evaluation.tagged.step-5", json.dumps(evaluation(0.5).summary()))
    log_evaluation(model, evaluation(0.25, split="alone too"), client)
    (metric,) = client.get_metric_history(model.mlflow_run_id, "alone too/CIDEr-D")
    assert metric.value == 0.25
    assert "the MLflow run may lack the scores: no route to the store" in caplog.text
    assert "earlier evaluations among the artifacts of the run cannot be read: no route to the store" in caplog.text
    lineage = trace(model, client)
    assert "tagged" in lineage.scores
    assert lineage.run["fault"] == "its evaluations cannot be read (no route to the store)"


def test_scores_of_a_run_are_its_metrics_at_the_checkpoints_step(client, run_folder):
    log_evaluation(resolve_model(str(run_folder), client), evaluation(0.25, split="alone"), client)  # by no other test
    run_id = json.loads((run_folder / "run.json").read_text())["mlflow_run_id"]
    (metric,) = client.get_metric_history(run_id, "alone/CIDEr-D")
    assert (metric.step, metric.value) == (5, 0.25)


@pytest.fixture
def own_client(empty_home):
    """Return a client of a tracker without the models of other tests, which a list of all would read, too."""
    return connect(TrackingConfig(), empty_home)


def test_a_name_without_versions_hides_no_other(own_client, name):
    own_client.create_registered_model(f"{name}-empty")
    add_version(name, own_client)
    assert [one.name for one in list_versions(own_client)] == [name]


def test_a_name_that_cannot_be_is_named(client):
    with pytest.raises(ValueError, match="model o'b cannot be read from the registry"):
        list_versions(client, "o'b")


def test_a_name_without_versions_is_told(client, name):
    client.create_registered_model(name)
    with pytest.raises(ValueError, match=f"model {name} has no versions; captioning register MODEL {name} creates one"):
        list_versions(client, name)


def test_versions_are_listed_newest_first_with_aliases_and_scores(client, run_folder, name):
    register_scored(name, client, run_folder, 0.5)
    make_champion(name, client, "1")
    register_scored(name, client, run_folder, 0.6)
    listed = [(one.version, one.aliases, one.scores["val"]["scores"]["CIDEr-D"]) for one in list_versions(client, name)]
    assert listed == [("2", ("challenger",), 0.6), ("1", ("champion",), 0.5)]


def test_versions_are_listed_with_the_changes_that_made_them_champion(client, name):
    for promoted in (None, None, "1"):
        make_champion(name, client, promoted)
    assert [one.changes for one in list_versions(client, name)] == [(2,), (1, 3)]


def test_a_list_sets_the_alias_right_unless_it_is_a_dry_run(client, name):
    make_champion(name, client)
    aliases = []
    for is_dry_run in (True, False):
        client.delete_registered_model_alias(name, "champion")
        (listed,) = list_versions(client, name, is_dry_run=is_dry_run)
        aliases.append(listed.aliases)
    assert aliases == [("challenger",), ("challenger", "champion")]


def test_more_models_than_a_page_are_listed(own_client, monkeypatch):
    search = own_client.search_registered_models
    monkeypatch.setattr(own_client, "search_registered_models", partial(search, max_results=3))
    for number in range(6):
        own_client.create_registered_model(f"m{number}")
    add_version("n", own_client)
    assert [one.name for one in list_versions(own_client)] == ["n"]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("models:/nobody@champion", ValueError, "model nobody cannot be read from the registry"),
        ("models:/nobody/3", ValueError, "models:/nobody/3 is not in the registry"),
        ("models:/nobody", ValueError, "models:/nobody names no version; use models:/NAME@alias or models:/NAME/VER"),
        ("models:/nobody@", ValueError, "models:/nobody@ names no version; use"),
        ("runs:/0123", ValueError, "runs:/0123 is not in the tracker"),
        ("nowhere", FileNotFoundError, "model .*nowhere is not a folder; use models:/NAME@alias"),
    ],
)
def test_an_unknown_model_is_named(client, model, error, message):
    with pytest.raises(error, match=message):
        resolve_model(model, client)


def test_a_folder_without_a_checkpoint_is_named(client, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a checkpoint"):
        resolve_model(str(tmp_path), client)


def test_a_run_without_a_checkpoint_is_named(client, tmp_path):
    RunRecord(name="r", identity={}, mlflow_run_id="m").save(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no committed checkpoint"):
        resolve_model(str(tmp_path), client)


def test_a_run_of_something_else_is_refused(client):
    run_id = client.create_run("0").info.run_id
    with pytest.raises(ValueError, match="is not a training run; use a run that captioning train created"):
        resolve_model(f"runs:/{run_id}", client)


def test_a_checkpoint_of_another_tracker_is_not_registered(run_folder, empty_home):
    other = connect(TrackingConfig(), empty_home)
    with pytest.raises(ValueError, match=r"is not in this tracker .*use the --tracking\.uri or --home"):
        register(resolve_model(str(run_folder), other), "m", other)


def test_a_name_that_mlflow_refuses_is_named(client, run_folder):
    with pytest.raises(ValueError, match=r"'\.\.' is not a valid model name"):
        register(resolve_model(str(run_folder), client), "..", client)


@pytest.mark.parametrize("wrong", ["a/b", "o'neil", 'the "best"', "captioner@v1", "a\\b", "a\nb", " a", ""])
def test_a_name_that_no_command_could_address_is_refused(client, run_folder, wrong):
    with pytest.raises(ValueError, match=r"^name .* cannot be a model's name; use letters, digits, spaces, periods"):
        register(resolve_model(str(run_folder), client), wrong, client)


def test_the_name_of_a_history_is_no_models(client, run_folder):
    with pytest.raises(ValueError, match=r"name 'a\.history' is for the history of another model; use one that ends"):
        register(resolve_model(str(run_folder), client), "a.history", client)


@pytest.mark.parametrize("value", ["no JSON", "[1]", "{}", '{"scores": {"CIDEr-D": "high"}}', "[" * 5000, "null"])
def test_scores_that_cannot_be_read_are_a_warning(client, caplog, value):
    add_version("malformed", client)
    client.set_model_version_tag("malformed", "1", "evaluation.val", value)
    client.set_model_version_tag("malformed", "1", "evaluation.test", '{"scores": {"CIDEr-D": 1}}')
    (listed,) = [one for one in list_versions(client, "malformed") if one.version == "1"]
    assert listed.scores == {"test": {"scores": {"CIDEr-D": 1.0}}}
    assert "evaluation.val was altered and holds no scores (" in caplog.text


def test_a_model_that_cannot_be_read_is_left_out_with_a_warning(own_client, name, monkeypatch, caplog):
    make_champion(name, own_client)
    add_version("broken", own_client)
    read = own_client.get_registered_model

    def fail(wanted):
        if wanted == "broken":
            raise MlflowException("no such row")
        return read(wanted)

    monkeypatch.setattr(own_client, "get_registered_model", fail)
    assert [one.name for one in list_versions(own_client)] == [name]
    assert "model broken is left out: MLflow answers INTERNAL_ERROR: no such row" in caplog.text


def test_names_of_any_characters_harm_no_other_and_are_listed(own_client, name):
    others = ("o'neil\\", '"', "'\"both\"' = '1' OR name")
    make_champion(name, own_client)
    for other in others:
        make_champion(other, own_client)
        make_champion(other, own_client)
    listed = [(one.name, one.version, one.changes) for one in list_versions(own_client)]
    for other in others:
        assert (other, listed.count((other, "2", (2,))), listed.count((other, "1", (1,)))) == (other, 1, 1)
    assert name in {one[0] for one in listed}
