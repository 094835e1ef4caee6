from dataclasses import replace

import pytest

from captioning.config import ModelConfig, TrainingConfig
from cluster.config import StorageConfig, ValidationConfig
from cluster.search.plan import best_run, plan_search
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.trials import Trial


@pytest.fixture
def run(drawn_shards, tmp_path):
    (tmp_path / "search.yaml").write_text("optimizer.learning_rate: choice([1e-5, 1e-2])\nmodel.hidden_size: 8\n")
    return TuneRun(
        name="s",
        shards=drawn_shards,
        model=ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=64, embedding_size=16),
        training=TrainingConfig(batch_size=30),
        storage=StorageConfig(home=tmp_path),
        search=SearchConfig(space=tmp_path / "search.yaml", num_trials=9, sampler="grid"),
    )


def test_a_grid_of_a_range_is_refused_before_anything_starts(run, tmp_path):
    (tmp_path / "search.yaml").write_text("optimizer.learning_rate: loguniform(1e-4, 1e-2)\n")
    with pytest.raises(ValueError, match=r"a grid has no steps for optimizer\.learning_rate"):
        plan_search(replace(run, search=replace(run.search, space=tmp_path / "search.yaml")))


def test_scores_beside_the_workers_are_refused_before_anything_starts(run):
    with pytest.raises(ValueError, match="scores that the trials' own workers compute; use"):
        plan_search(replace(run, validation=ValidationConfig(where="beside")))


def test_a_search_has_no_more_trials_than_its_space_has_points(run):
    assert plan_search(run).num_trials == 2


def test_the_record_has_each_searched_key_in_its_space_alone(run):
    record = plan_search(run).record()
    assert list(record.space) == ["optimizer.learning_rate", "model.hidden_size"]
    assert {"optimizer.learning_rate", "model.hidden_size", "training.num_epochs"} & set(record.identity) == set()
    assert record.identity["training.batch_size"] == 30


def test_trials_read_features_in_a_folder_named_by_what_they_follow_from(run):
    plan = plan_search(run)
    assert plan.run.features == run.storage.home / "features" / plan.features_digest[:16]
    assert (plan.extracts, plan.needs_extraction, plan.trial_data().features) == (True, True, None)


def test_trials_read_images_if_features_are_not_to_be_extracted(run):
    plan = plan_search(replace(run, search=replace(run.search, extract=False)))
    assert (plan.run.features, plan.features_digest, plan.needs_extraction) == (None, None, False)


def test_the_best_run_has_the_trials_point_and_number(run):
    trial = Trial(number=7, point={"model.hidden_size": 24}, key="k", until=1)
    found = best_run(run, trial)
    assert (found.name, found.model.hidden_size, found.training) == ("s-best-0007", 24, run.training)
