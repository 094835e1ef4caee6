from dataclasses import replace

import pytest

from captioning.config import ModelConfig
from cluster.config import ClusterConfig
from cluster.data.shard_set import ShardSet
from cluster.search import features
from cluster.search.features import (
    check_features,
    extract_features,
    planned_features_digest,
    why_trials_read_images,
)
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.space.space import parse_space
from tests.support.case_table import each_case

RUN = TuneRun(model=ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=64))


@each_case(
    ("content", "run", "reason"),
    [
        ({"model.hidden_size": 8}, RUN, ""),
        ({"model.hidden_size": 8}, replace(RUN, search=SearchConfig(extract=False)), "--no-extract"),
        (
            {"model.hidden_size": 8},
            replace(RUN, model=replace(RUN.model, trainable_from="features.12")),
            "the encoder trains from features.12 on",
        ),
        ({"model.backbone": "choice(['resnet18', 'resnet34'])"}, RUN, "the search changes model.backbone"),
        ({"training.flip": "choice([true, false])"}, RUN, "the search changes training.flip"),
    ],
)
def test_trials_read_images_where_one_set_of_features_does_not_suit_all(content, run, reason):
    assert why_trials_read_images(run, parse_space(content, run)) == reason


def test_given_features_that_do_not_suit_all_trials_are_refused(tmp_path):
    run = replace(RUN, features=tmp_path)
    space = parse_space({"training.seed": "int(0, 3)"}, run)
    with pytest.raises(ValueError, match=r"not all trials can use --features: the search changes training\.seed"):
        check_features(run, space)


def test_a_search_with_a_model_that_reads_all_regions_needs_features_of_them(drawn_shards):
    run, shard_set = replace(RUN, shards=drawn_shards), ShardSet(drawn_shards)

    def digest(content, model=run.model):
        return planned_features_digest(replace(run, model=model), parse_space(content, run), shard_set)

    of_regions = {
        digest({"model.pooling": "choice(['mean', 'none'])"}),
        digest({"model.decoder": "choice(['lstm', 'attend'])"}),
        digest({"model.decoder": "transformer"}),
        digest({"model.hidden_size": 8}, replace(run.model, decoder="attend")),
    }
    pooled = {digest({"model.hidden_size": 8}), digest({"model.decoder": "lstm"})}
    assert (len(of_regions), len(pooled), len(of_regions & pooled)) == (1, 1, 0)


@each_case(
    ("changes", "num_workers"),
    [
        ({}, 0),
        ({"search": SearchConfig(views=2)}, 3),
        ({"cluster": ClusterConfig(address="head:6379")}, 3),
        ({"cluster": ClusterConfig(use_gpu=True)}, 3),
    ],
)
def test_few_images_are_encoded_without_waiting_for_actors(drawn_shards, tmp_path, monkeypatch, changes, num_workers):
    given = []
    monkeypatch.setattr(features, "total_capacity", lambda cluster: 3)
    monkeypatch.setattr(features, "extract", lambda plan, num_workers, **_: given.append(num_workers))
    run = replace(RUN, shards=drawn_shards, features=tmp_path, **changes)
    space = parse_space({"model.hidden_size": 8}, run)
    extract_features(run, space, ShardSet(drawn_shards), progress=lambda done, total: None)
    assert given == [num_workers]
