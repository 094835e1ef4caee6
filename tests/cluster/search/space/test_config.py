from dataclasses import fields

import pytest

from captioning.config import TrainingConfig
from cluster.config import TrainRun, ValidationConfig
from cluster.search.space.config import TUNE_PRESETS, SearchConfig, TuneRun
from tests.support.case_table import each_case


@each_case(
    ("settings", "message"),
    [
        (
            {"metric": "accuracy"},
            "metric accuracy is not reported by trials; use validation_loss_nats or validation_cider_d",
        ),
        ({"num_trials": 0}, "num_trials 0 is too small; use 1 or more"),
        ({"max_epochs": 0}, "max_epochs 0 is too small"),
        ({"reduction_factor": 1}, "reduction_factor 1 is too small; use 2 or more"),
        ({"max_failures": -1}, "max_failures -1 is too small; use 0 or more"),
        ({"views": 0}, "views 0 is too small"),
    ],
)
def test_a_search_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SearchConfig(**settings)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"metric": "validation_loss_nats"}, "trials are compared by validation_loss_nats; use --metric"),
        ({"max_epochs": 2}, "2 self-critical epochs leave no other of the 2 epochs of a trial; use fewer --training"),
    ],
)
def test_trials_that_cannot_be_self_critical_are_refused(search, message):
    with pytest.raises(ValueError, match=message):
        TuneRun(
            training=TrainingConfig(self_critical_epochs=2.0),
            validation=ValidationConfig(best_by="validation_cider_d"),
            search=SearchConfig(**{"metric": "validation_cider_d"} | search),
        )


@pytest.mark.parametrize(("metric", "mode"), [("validation_loss_nats", "min"), ("validation_cider_d", "max")])
def test_the_metric_says_which_score_is_best(metric, mode):
    assert SearchConfig(metric=metric).mode == mode


def test_the_base_has_every_setting_of_the_search_but_what_is_changed():
    run = TuneRun(name="s", search=SearchConfig(num_trials=2))
    base = run.base(name="other")
    differing = {one.name for one in fields(TrainRun) if getattr(run, one.name) != getattr(base, one.name)}
    assert (type(base), differing) == (TrainRun, {"name"})


@each_case("preset", TUNE_PRESETS)
def test_a_preset_searches_with_trials_of_one_worker(preset):
    assert TUNE_PRESETS[preset][1].cluster.num_workers == 1
