"""MLflow's own calls on a registered version: ``evaluate`` gives the scores of this project, ``predict`` captions."""

import base64
import warnings

import mlflow.models
import pandas
import pytest

from cluster import api
from cluster.config import StorageConfig, TrackingConfig
from cluster.registry.logged_models import default_tracker
from cluster.registry.models import resolve_model
from cluster.registry.registration import register
from cluster.tracking.client import connect
from shards.synthetic.scenes import draw_scene, render
from tests.support.pictures import encoded

SCENE = base64.b64encode(encoded(render(draw_scene(0, 1, size_px=64)))).decode()


@pytest.fixture(scope="module")
def storage(tiny_run):
    return StorageConfig(home=tiny_run.parent.parent)


@pytest.fixture(scope="module")
def client(storage):
    return connect(TrackingConfig(), storage)


@pytest.fixture(scope="module")
def version(client, tiny_run):
    register(resolve_model(str(tiny_run), client), "by-mlflow", client, intake=api.ImageInputConfig(max_rows=2))
    return "models:/by-mlflow/1"


@pytest.fixture(autouse=True)
def quiet(client):
    with default_tracker(client), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.cluster
def test_mlflows_evaluation_gives_the_scores_of_this_projects(version, storage, drawn_shards):
    ours = api.evaluate(version, drawn_shards, storage=storage)
    theirs = mlflow.models.evaluate(version, **api.mlflow_evaluation(drawn_shards, storage=storage))
    assert (theirs.metrics, ours.scores["BLEU-1"] > 0) == (ours.scores, True)


def test_a_split_that_is_not_there_is_named(drawn_shards, storage):
    with pytest.raises(ValueError, match="the shard set has no split test"):
        api.mlflow_evaluation(drawn_shards, split="test", storage=storage)


def test_mlflows_prediction_captions(version, tmp_path):
    rows = pandas.DataFrame({"image": [SCENE]})
    mlflow.models.predict(version, rows, env_manager="local", output_path=str(tmp_path / "out.json"))
    assert '"error": null' in (tmp_path / "out.json").read_text()
