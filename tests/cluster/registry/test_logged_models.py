"""The LoggedModel of a version, as MLflow's client sees it."""

import json
import os
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from cluster.errors import Refusal
from cluster.evaluation.evaluate import Evaluation
from cluster.registry.logged_models import default_tracker, logged_model_id, record_of, require_logged_models
from cluster.registry.models import resolve_model
from cluster.registry.registration import register
from cluster.registry.scores import log_evaluation
from cluster.registry.versions import list_versions
from tests.support.registered_versions import add_version

DATASET = ("shards-val", "d" * 36)


def evaluation(score):
    scores = {"scores": {"CIDEr-D": score}, "captions": {1: "a"}, "intervals": {"CIDEr-D": (score - 0.1, score + 0.1)}}
    return Evaluation(split="val", shards_digest="d" * 64, step=5, **scores)


def logged(created, client):
    return client.get_logged_model(logged_model_id(created))


def test_a_version_its_logged_model_and_its_run_name_each_other(client, model, name):
    created = register(model, name, client)
    found = logged(created, client)
    run = client.get_run(model.mlflow_run_id)
    assert (created.source, created.run_id) == (found.model_uri, model.mlflow_run_id)
    assert (found.source_run_id, found.model_type, found.status.value) == (run.info.run_id, "image captioner", "READY")
    assert json.loads(found.tags["mlflow.modelVersions"]) == [{"name": name, "version": 1}]
    assert (found.model_id, 5) in [(one.model_id, one.step) for one in run.outputs.model_outputs]
    assert found.params["encoder"] == model.description.model.backbone


def test_a_logged_model_is_found_by_what_it_was_trained_on(client, model, name):
    created = register(model, name, client)
    experiment = client.get_run(model.mlflow_run_id).info.experiment_id
    wanted = f"params.shards_digest = '{'d' * 64}' AND params.step = '5'"
    found = client.search_logged_models([experiment], filter_string=wanted)
    assert logged_model_id(created) in [one.model_id for one in found]


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_scores_are_metrics_of_the_model_on_their_dataset_whether_logged_before_or_after(
    client, model, request, is_first
):
    name, score = f"scored-{is_first}", 0.25 if is_first else 0.5
    if is_first:
        log_evaluation(model, evaluation(score), client)
    created = register(model, name, client)
    if not is_first:
        log_evaluation(resolve_model(f"models:/{name}/1", client), evaluation(score), client)
    found = [one for one in logged(created, client).metrics if one.key == "val/CIDEr-D" and one.value == score]
    assert [(one.step, one.dataset_name, one.dataset_digest) for one in found] == [(5, *DATASET)]


def test_the_same_scores_logged_again_are_one_point_of_the_chart(client, model, name):
    for _ in range(2):
        log_evaluation(model, evaluation(0.75), client)
    register(model, name, client)
    history = client.get_metric_history(model.mlflow_run_id, "val/CIDEr-D")
    assert [one.value for one in history].count(0.75) == 1


def test_what_the_run_logged_of_the_checkpoint_is_the_models_too(client, model, name):
    client.log_metric(model.mlflow_run_id, "validation_loss_nats", 1.0, timestamp=7, step=5)
    client.log_metric(model.mlflow_run_id, "validation_loss_nats", 2.0, timestamp=8, step=9)
    found = [one for one in logged(register(model, name, client), client).metrics if one.key == "validation_loss_nats"]
    assert [(one.value, one.step, one.dataset_name) for one in found] == [(1.0, 5, "shards-val")]
    assert len(client.get_metric_history(model.mlflow_run_id, "validation_loss_nats")) == 2


def test_a_version_has_the_few_tags_that_people_filter_by(client, model, name):
    tags = register(model, name, client).tags
    assert tags == {"validation_status": "pending", "split": "val", "shards_digest": "d" * 64, "git_commit": "c"}


def test_a_version_of_an_earlier_release_has_its_record_in_its_tags(client, name):
    version = add_version(name, client)
    client.set_model_version_tag(name, version, "step", "5")
    assert record_of(client.get_model_version(name, version), client)["step"] == "5"


def test_a_deleted_logged_model_is_named_where_it_is_needed_and_a_warning_elsewhere(client, model, name, caplog):
    created = register(model, name, client)
    client.delete_logged_model(logged_model_id(created))
    message = rf"LoggedModel m-\w+ of {name} version 1 was deleted; use another version, or register runs:/\w+ again$"
    with pytest.raises(Refusal, match=message):
        resolve_model(f"models:/{name}/1", client)
    assert [one.version for one in list_versions(client, name)] == ["1"]
    assert f"of {name} version 1 was deleted" in caplog.text


@contextmanager
def old_server(version):
    """Answer as a server of MLflow 2 does, which knows neither LoggedModels nor, before 1.3, its own version."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            is_known = self.path == "/version" and version
            self.send_response(200 if is_known else 404)
            self.end_headers()
            self.wfile.write((version if is_known else "<html>Not Found</html>").encode())

        do_POST = do_GET  # noqa: N815  a name that the base class asks for

        def log_message(self, format, *arguments):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("version", "said"), [("2.22.0", "has version 2.22.0, which has no"), (None, "has no")])
def test_a_tracker_older_than_logged_models_is_refused_with_the_version_it_needs(version, said):
    with old_server(version) as address:
        message = rf"^MLflow at {address} {said} LoggedModels; use a server of MLflow 3\.0 or newer$"
        with pytest.raises(Refusal, match=message):
            require_logged_models(MlflowClient(address, address), "1")


@pytest.mark.parametrize("before", [None, "http://elsewhere:1"])
def test_the_default_tracker_is_the_one_of_before_again(empty_tracker, monkeypatch, before, tmp_path):
    shutil.copy(empty_tracker, tmp_path / "x.db")
    if before:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    else:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with default_tracker(SimpleNamespace(tracking_uri=f"sqlite:///{tmp_path}/x.db")):
        assert MlflowClient().tracking_uri == f"sqlite:///{tmp_path}/x.db"

    assert os.environ.get("MLFLOW_TRACKING_URI") == before
