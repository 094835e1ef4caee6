import pytest

from captioning.config import ModelConfig, TrainingConfig
from cluster.checks.rehearsal import StepTiming
from cluster.config import TrainRun
from cluster.search.estimate import estimate_search, expected_epochs
from cluster.search.space.config import SearchConfig
from tests.support.case_table import each_case


@pytest.fixture
def run(drawn_shards):
    model = ModelConfig(
        backbone="squeezenet1_1", weights="none", image_size_px=64, embedding_size=16, hidden_size=16, dropout=0.1
    )
    return TrainRun(shards=drawn_shards, model=model, training=TrainingConfig(batch_size=8))


@each_case(
    ("scheduler", "num_trials", "max_epochs", "factor", "epochs"),
    [
        ("none", 24, 9, 4, 216),
        ("asha", 24, 9, 4, 24 + 6 * 3 + 1 * 5),
        ("asha", 16, 16, 4, 16 + 4 * 3 + 1 * 12),
        ("asha", 2, 9, 4, 2 + 1 * 3 + 1 * 5),  # the best of them is promoted in any case
        ("asha", 5, 1, 4, 5),
    ],
)
def test_epochs_are_those_of_the_trials_that_are_promoted(scheduler, num_trials, max_epochs, factor, epochs):
    search = SearchConfig(scheduler=scheduler, max_epochs=max_epochs, reduction_factor=factor)
    assert expected_epochs(search, num_trials) == epochs


MEASURED = StepTiming(0.5, 0.02, "here")
SPLITS = {"train": 120, "val": 30}


@pytest.mark.parametrize(("at_once", "share"), [(1, 1.0), (2, 0.5), (100, 0.25)])
def test_trials_side_by_side_take_less_but_never_less_than_one_trial(run, at_once, share):
    search = SearchConfig(num_trials=4, max_epochs=3, scheduler="none")
    found = estimate_search(
        search, MEASURED, run=run, splits=SPLITS, num_trials=4, trials_at_once=at_once, extracts=False
    )
    assert (found.steps_per_trial, found.num_epochs, found.seconds) == (45, 12, pytest.approx(45 * 0.5 * 4 * share))


@pytest.mark.parametrize(("views", "extracts", "expected"), [(1, True, 150), (4, True, 600), (4, False, 0)])
def test_every_view_of_every_image_is_extracted_once(run, views, extracts, expected):
    search = SearchConfig(num_trials=1, max_epochs=1, views=views)
    found = estimate_search(search, MEASURED, run=run, splits=SPLITS, num_trials=1, trials_at_once=1, extracts=extracts)
    assert (found.num_views, found.extraction_seconds) == (expected, pytest.approx(0.02 * expected))
