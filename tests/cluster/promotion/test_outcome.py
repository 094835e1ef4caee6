import json

import pytest
from mlflow.exceptions import MlflowException

from cluster.config import StorageConfig, TrackingConfig
from cluster.promotion.outcome import record_outcome
from cluster.promotion.promotion import promote, rollback
from cluster.registry.logged_models import logged_model_id, record_of
from cluster.registry.models import resolve_model
from cluster.registry.registration import register
from cluster.tracking.client import connect
from tests.support.registered_versions import judgement, make_champion


@pytest.fixture(scope="module")
def client(tiny_run):
    return connect(TrackingConfig(), StorageConfig(home=tiny_run.parent.parent))


@pytest.fixture
def name(request, client, tiny_run):
    """Return a model's name of the test's own, of which there is one version."""
    name = request.node.name.replace("[", "-").replace("]", "")
    register(resolve_model(str(tiny_run), client), name, client)
    return name


def judge(is_passed, **changes):
    def judged(challenger, champion):
        found = judgement(is_passed)
        judged_model = {"name": challenger.name, "version": challenger.version, "step": 5, "precision": "fp32"}
        judged_model |= changes
        scores = {"scores": {"CIDEr-D": 0.625}, "intervals": {"CIDEr-D": [0.5, 0.75]}}
        found.evidence |= {
            "split": "val", "shards_digest": "d" * 64, "num_images": 30, "tokenizer": "ptb",
            "challenger": judged_model | scores, "champion": None, "settings": {"beam_size": 3},
        }  # fmt: skip
        return found

    return judged


@pytest.mark.parametrize(
    ("is_passed", "reason", "status"), [(True, None, "approved"), (False, None, "rejected"), (False, "must", "forced")]
)
def test_a_version_has_the_status_that_the_gate_gave_it_and_its_scores(client, name, is_passed, reason, status):
    record_outcome(promote(name, client, judge(is_passed), forced_because=reason), client)
    found = client.get_model_version(name, "1")
    assert found.tags["validation_status"] == status
    assert '"CIDEr-D": 0.625' in record_of(found, client)["evaluation.val"]
    metrics = client.get_logged_model(logged_model_id(found)).metrics
    linked = {(one.key, one.value, one.step, one.dataset_name) for one in metrics if one.value == 0.625}
    assert linked == {("val/CIDEr-D", 0.625, 5, "shards-val")}
    assert "| score | &nbsp; value | &nbsp; 95% interval |" in found.description
    assert "| CIDEr-D | &nbsp; 0.6250 | &nbsp; 0.5000 to 0.7500 |" in found.description


def test_the_scores_are_stored_with_the_search_that_found_the_captions(client, name):
    search = {"beam_size": 4, "generation": {"groups": 2}}
    record_outcome(promote(name, client, judge(True, search=search)), client)
    stored = json.loads(record_of(client.get_model_version(name, "1"), client)["evaluation.val"])
    assert {key: stored[key] for key in search} == search
    assert "split val, beam 4, groups 2" in client.get_model_version(name, "1").description


def test_a_tracker_that_takes_no_status_is_a_warning(client, name, monkeypatch, caplog):
    outcome = promote(name, client, judge(True))

    def refuse(*_):
        raise MlflowException("no")

    monkeypatch.setattr(client, "set_model_version_tag", refuse)
    record_outcome(outcome, client)
    assert f"scores and status of {name} version 1 could not be stored: " in caplog.text


def test_no_rollback_goes_to_a_version_without_its_logged_model(client, name, tiny_run):
    make_champion(name, client, "1")
    created = register(resolve_model(str(tiny_run), client), name, client)
    make_champion(name, client, f"{created.version}")
    client.delete_logged_model(logged_model_id(client.get_model_version(name, "1")))
    with pytest.raises(ValueError, match=rf"LoggedModel m-\w+ of {name} version 1 was deleted; use another version"):
        rollback(name, client)
