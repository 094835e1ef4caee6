"""Descriptions of versions and models in the registry."""

import re
import warnings

import pytest
from mlflow.exceptions import MlflowException

from cluster.evaluation.evaluate import Evaluation
from cluster.registry.cards import link_page, refresh_cards
from cluster.registry.logged_models import default_tracker
from cluster.registry.models import resolve_model
from cluster.registry.registration import register
from cluster.registry.scores import log_evaluation
from shards.synthetic.scenes import draw_scene, render
from tests.support.pictures import encoded
from tests.support.registered_versions import add_version, make_champion


@pytest.fixture
def created(client, tiny_run, name):
    return register(resolve_model(str(tiny_run), client), name, client)


def descriptions(name, client):
    return client.get_model_version(name, "1").description, client.get_registered_model(name).description


def test_a_version_and_its_model_have_a_card_with_the_data_of_the_run(client, name, created, drawn_shards):
    of_version, of_model = descriptions(name, client)
    assert f"training: shards-train, 120 images, `{'d' * 36}`, from `{drawn_shards}`" in of_version
    assert f"models:/{name}@challenger" in of_model


def test_scores_of_later_are_in_the_card(client, name, created):
    evaluation = Evaluation(split="val", shards_digest="d" * 64, step=5, scores={"CIDEr-D": 0.4321}, captions={1: "a"})
    log_evaluation(resolve_model(f"models:/{name}/1", client), evaluation, client)
    assert all("| CIDEr-D | &nbsp; 0.4321 |" in text for text in descriptions(name, client))


def test_the_model_has_the_card_of_its_champion(client, name, created):
    make_champion(name, client, "1")
    refresh_cards(name, "1", client)
    assert f"models:/{name}@champion" in descriptions(name, client)[1]


def test_a_description_by_hand_stays(client, name, created):
    client.update_model_version(name, "1", "our best")
    client.update_registered_model(name, "our models")
    refresh_cards(name, "1", client)
    assert descriptions(name, client) == ("our best", "our models")


def test_a_version_of_an_earlier_release_keeps_its_description(client, name):
    add_version(name, client)
    refresh_cards(name, "1", client)
    assert descriptions(name, client)[0] in (None, "")


def test_a_registry_that_refuses_a_description_is_a_warning(client, name, created, monkeypatch, caplog):
    def refuse(*_, **__):
        raise MlflowException("no")

    client.update_model_version(name, "1", "")
    monkeypatch.setattr(client, "update_model_version", refuse)
    refresh_cards(name, "1", client)
    assert f"the description of {name} could not be updated: " in caplog.text


def test_the_example_of_a_card_works(client, name, created, tmp_path, monkeypatch, capsys):
    (tmp_path / "photo.jpg").write_bytes(encoded(render(draw_scene(0, 1, size_px=64))))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall("```python\n(.*?)```", descriptions(name, client)[0], re.DOTALL)
    with default_tracker(client), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})
    assert capsys.readouterr().out.strip()


def test_a_card_links_the_page_of_its_version(client, name, created, model):
    link_page(name, "1", f"versions/{name}-1/model.html", client)
    run = client.get_run(model.mlflow_run_id)
    place = f"(#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/versions/{name}-1/model.html)"
    assert [place in text for text in descriptions(name, client)] == [True, True]


def test_a_page_that_cannot_be_linked_is_a_warning(client, caplog):
    link_page("no model", "1", "model.html", client)
    assert "the page of no model version 1 could not be linked: " in caplog.text
