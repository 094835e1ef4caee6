import json

import pytest
import yaml

from captioning.training.checkpoint import save_checkpoint
from captioning.training.checkpoint_description import CheckpointDescription
from cluster.config import TrackingConfig
from cluster.evaluation.evaluate import Evaluation
from cluster.provenance.lineage import trace
from cluster.registry.models import resolve_model, shards_of
from cluster.registry.registration import register
from cluster.registry.scores import log_evaluation
from cluster.tracking.client import connect, create_run
from cluster.tracking.experiment import experiment_id
from jobs.cli import run_job
from shards.features.manifest import load_features
from shards.manifest import load_manifest
from shards.storage.files import sha256_of
from tests.support.feature_sets import ENCODER, extracted
from tests.support.registered_versions import make_champion
from tests.support.tiny_models import MODEL, VOCABULARY, training_state


@pytest.fixture(scope="module")
def storage(home):
    return home


@pytest.fixture(scope="module")
def run_id(client, storage):
    experiment = experiment_id(client, TrackingConfig(), storage)
    return create_run(client, experiment, key="k", name="first", parameters={}, tags={})


@pytest.fixture
def checkpoint(tmp_path, run_id):
    """Return a function that writes a checkpoint of the run, given what it was trained on."""

    def write(configuration, **lineage):
        code = {"git_commit": "c" * 40, "git_dirty": "true"}
        description = CheckpointDescription(
            step=7,
            model=MODEL,
            vocabulary_digest=VOCABULARY.digest,
            max_caption_words=8,
            lineage={"run": "first", "mlflow_run_id": run_id, **code, **lineage},
        )
        folder, config = tmp_path / "checkpoint", yaml.safe_dump(configuration)
        save_checkpoint(folder, training_state(), VOCABULARY, description=description, config=config)
        return folder

    return write


def trained_on(shards, **more):
    return {"shards": str(shards), "training": {"seed": 3}, **more}


def test_the_chain_goes_down_to_the_checksums_of_annotations_and_shards(client, checkpoint, drawn_shards):
    digest = load_manifest(drawn_shards).digest
    folder = checkpoint(trained_on(drawn_shards), shards_digest=digest)
    shards = trace(resolve_model(str(folder), client), client).shards
    annotations = drawn_shards.parent / "scenes" / "annotations"
    assert (shards["digest"], shards["samples"]) == (digest, {"train": 120, "val": 30})
    assert shards["annotations"] == {file.name: sha256_of(file) for file in annotations.iterdir()}
    assert shards["files"] == {file.name: sha256_of(file) for file in drawn_shards.glob("*.tar")}


def test_the_chain_names_run_code_configuration_and_files(client, checkpoint, drawn_shards, run_id):
    folder = checkpoint(trained_on(drawn_shards))
    lineage = trace(resolve_model(str(folder), client), client)
    assert (lineage.run["mlflow_run_id"], lineage.run["name"], lineage.run["status"]) == (run_id, "first", "RUNNING")
    assert lineage.code == {"commit": "c" * 40, "dirty": "true"}
    assert lineage.configuration == trained_on(drawn_shards)
    assert lineage.checkpoint["model.safetensors"] == sha256_of(folder / "model.safetensors")


def test_the_chain_of_a_version_tells_who_promoted_it_over_what_and_its_scores(client, checkpoint, drawn_shards):
    model = resolve_model(str(checkpoint(trained_on(drawn_shards))), client)
    scores = {"scores": {"CIDEr-D": 0.5}, "captions": {1: "a"}, "shards_digest": "d" * 64}
    log_evaluation(model, Evaluation(split="val", step=7, **scores), client)
    register(model, "served", client)
    make_champion("served", client)
    made = make_champion("served", client, "1")
    lineage = trace(resolve_model("models:/served/1", client), client)
    assert (lineage.promotions, made.over) == ((made,), "2")
    assert (lineage.scores["val"]["scores"], "torch" in lineage.packages) == ({"CIDEr-D": 0.5}, True)
    assert sorted(lineage.registered) == ["at", "by"]


def test_the_chain_goes_through_the_features(client, checkpoint, drawn_shards, tmp_path):
    features = extracted(drawn_shards, tmp_path / "features")
    digest = load_features(features).digest
    folder = checkpoint(trained_on(drawn_shards, features=str(features)), features_digest=digest)
    found = trace(resolve_model(str(folder), client), client).features
    assert (found["digest"], found["encoder"]["backbone"], len(found["files"])) == (digest, ENCODER.backbone, 4)


@pytest.mark.parametrize(
    ("configuration", "fault"),
    [
        ({}, "the configuration does not name its location"),
        ({"shards": "/nowhere"}, "/nowhere is not a finished shard set"),
        ({"shards": "drawn"}, "the location now holds another set, "),
    ],
)
def test_data_that_cannot_be_reached_says_so_in_its_place(client, checkpoint, drawn_shards, configuration, fault):
    if configuration.get("shards") == "drawn":
        configuration = {"shards": str(drawn_shards)}
    folder = checkpoint(configuration, shards_digest="d" * 64)
    shards = trace(resolve_model(str(folder), client), client).shards
    assert (shards["digest"], fault in shards["fault"]) == ("d" * 64, True)


def test_a_run_of_another_tracker_says_so_in_its_place(checkpoint, drawn_shards, empty_home):
    folder = checkpoint(trained_on(drawn_shards))
    other = connect(TrackingConfig(), empty_home)
    lineage = trace(resolve_model(str(folder), other), other)
    assert ("not in this tracker" in lineage.run["fault"], lineage.run["name"]) == (True, "first")


def test_the_shard_set_of_a_model_is_that_of_its_configuration(client, checkpoint, drawn_shards):
    assert shards_of(resolve_model(str(checkpoint(trained_on(drawn_shards))), client)) == str(drawn_shards)


def test_a_model_without_a_shard_set_is_named(client, checkpoint):
    with pytest.raises(ValueError, match="the configuration of step 7 of run first names no shard set; pass one with"):
        shards_of(resolve_model(str(checkpoint({"name": "first"})), client))


@pytest.mark.parametrize("is_json", [True, False])
def test_the_job_shows_the_chain(checkpoint, drawn_shards, storage, monkeypatch, capsys, is_json):
    monkeypatch.setenv("CAPTIONING_HOME", str(storage.home))
    digest = load_manifest(drawn_shards).digest
    folder = checkpoint(trained_on(drawn_shards), shards_digest=digest)
    with pytest.raises(SystemExit, match="0"):
        run_job("lineage", [str(folder), *(["--json"] if is_json else [])])
    printed = capsys.readouterr()
    if is_json:
        assert json.loads(printed.out)["shards"]["digest"] == digest
    else:
        assert [row for row in ("captions_train.json", "train-000000.tar", "1 more shards", "uncommitted changes: true")
                if row not in printed.err] == []  # fmt: skip
