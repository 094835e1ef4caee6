import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from captioning.config import TrainingConfig
from cluster.config import StorageConfig, TrackingConfig, ValidationConfig
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.trials import (
    SearchRecord,
    Trial,
    TrialReport,
    best_trial,
    check_same_search,
    load_search,
    load_trial,
    load_trials,
    point_text,
    trial_run,
)
from tests.support.case_table import each_case

RECORD = SearchRecord(
    name="s",
    key="k",
    space={"model.hidden_size": "choice([8, 16])"},
    settings={"metric": "validation_loss_nats", "max_epochs": 4},
    identity={"training.batch_size": 15},
)


def trial(number, *scores, state="running", **point):
    reports = tuple(TrialReport(step, step, score, 1.5, 1000 * step) for step, score in enumerate(scores, start=1))
    return Trial(
        number=number,
        point=point or {"model.hidden_size": 8},
        key=f"k{number}",
        until=4,
        state=state,
        reports=reports,
    )


def test_trials_are_read_as_they_were_saved_by_number(tmp_path):
    trials = [trial(0, 3.5, 2.5, state="finished"), trial(1), trial(10, 4.0, state="stopped")]
    for one in reversed(trials):
        one.save(tmp_path)
    assert load_trials(tmp_path) == trials


def test_one_trial_is_read_by_its_number(tmp_path):
    trial(7, 1.0).save(tmp_path)
    assert load_trial(tmp_path, 7) == trial(7, 1.0)


def test_a_search_that_never_started_has_no_record(tmp_path):
    assert load_search(tmp_path) is None


def test_a_record_is_read_as_it_was_saved(tmp_path):
    RECORD.save(tmp_path / "new")
    assert load_search(tmp_path / "new") == RECORD


@pytest.mark.parametrize("content", [b"", b"{", b'{"number": "x"}'])
def test_a_damaged_trial_is_refused(tmp_path, content):
    trial(0).save(tmp_path)
    (tmp_path / "trials" / "trial-0000.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"trial-0000.json is damaged .*; search under another --name"):
        load_trials(tmp_path)


def test_a_search_of_a_newer_format_is_refused_by_its_number(tmp_path):
    replace(RECORD, format_version=2).save(tmp_path)
    with pytest.raises(ValueError, match=r"search\.json has format version 2, this release reads 1; use the release"):
        load_search(tmp_path)


def test_the_same_search_resumes():
    check_same_search(RECORD, replace(RECORD, key="another", num_starts=3))


@each_case(
    ("change", "message"),
    [
        ({"space": {"model.hidden_size": "choice([8])"}}, r"model.hidden_size choice\(\[8, 16\]\) -> choice\(\[8\]\)"),
        ({"settings": {**RECORD.settings, "max_epochs": 9}}, "max_epochs 4 -> 9"),
        ({"identity": {"training.batch_size": 16}}, "training.batch_size 15 -> 16"),
        ({"identity": {}}, "training.batch_size 15 -> .absent."),
    ],
)
def test_another_search_under_the_name_is_refused_with_the_difference(change, message):
    with pytest.raises(ValueError, match=f"search s was started with another .*{message}.*choose another --name"):
        check_same_search(RECORD, replace(RECORD, **change))


def test_a_trial_is_a_training_run_in_a_folder_below_the_searchs(tmp_path):
    run = TuneRun(name="s", storage=StorageConfig(home=tmp_path), search=SearchConfig(max_epochs=3))
    found = trial_run(run, trial(4, **{"model.hidden_size": 99}), tracking_uri="sqlite:///t.db")
    assert (found.folder, found.model.hidden_size, found.training.num_epochs, found.tracking.uri) == (
        tmp_path / "tuning" / "s" / "training" / "trial-0004", 99, 3.0, "sqlite:///t.db",
    )  # fmt: skip


def test_the_last_epochs_of_a_trial_are_self_critical():
    run = TuneRun(
        training=TrainingConfig(self_critical_epochs=1.0),
        validation=ValidationConfig(best_by="validation_cider_d"),
        search=SearchConfig(max_epochs=3, metric="validation_cider_d"),
    )
    training = trial_run(run, trial(0), tracking_uri="").training
    assert (training.num_epochs, training.self_critical_epochs) == (2.0, 1.0)


def test_checkpoints_elsewhere_lie_in_a_folder_of_the_search():
    storage = StorageConfig(home=Path("runs"), checkpoints="s3://bucket/all/")
    run = TuneRun(name="s", storage=storage, tracking=TrackingConfig())
    assert trial_run(run, trial(0), tracking_uri="").storage.checkpoints == "s3://bucket/all/s"


@pytest.mark.parametrize(("mode", "expected"), [("min", 1), ("max", 0)])
def test_the_best_trial_has_the_best_score_of_any_epoch(mode, expected):
    trials = [trial(0, 3.0, 5.0), trial(1, 2.0, 4.0), trial(2), trial(3, math.nan)]
    assert best_trial(trials, mode).number == expected


def test_of_equal_trials_the_first_is_the_best():
    assert best_trial([trial(3, 1.0), trial(2, 1.0)], "min").number == 2


def test_without_a_score_there_is_no_best_trial():
    assert best_trial([trial(0), trial(1, math.nan)], "min") is None


def test_a_trial_counts_its_epochs_and_its_own_time():
    assert (trial(0, 3.0, 2.0).epochs, trial(0, 3.0, 2.0).seconds, trial(0).epochs) == (2, 3.0, 0)


def test_a_point_reads_as_its_settings():
    text = point_text({"optimizer.learning_rate": 0.00123456, "model.hidden_size": 256, "training.flip": True})
    assert text == "learning_rate 0.00123, hidden_size 256, flip True"


def test_a_trials_file_holds_numbers_and_names_alone(tmp_path):
    trial(0, 1.0).save(tmp_path)
    content = json.loads((tmp_path / "trials" / "trial-0000.json").read_text())
    assert content["reports"] == [[1, 1, 1.0, 1.5, 1000]]
