import csv

import pytest
import yaml

from cluster.config import StorageConfig
from cluster.search.artifacts import write_artifacts
from cluster.search.plan import best_run
from cluster.search.scheduler import SearchScheduler
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.space.space import parse_space
from cluster.search.trials import SearchRecord, Trial, TrialReport
from tests.support.html import Page

SPACE = {"model.hidden_size": "choice([8, 16])", "training.batch_size": 32}


def write(folder, *scores):
    """Write the files of a search with a trial for each score; return their texts."""
    run = TuneRun(name="s", storage=StorageConfig(home=folder), search=SearchConfig(num_trials=2, max_epochs=1))
    space = parse_space(SPACE, run)
    trials = [
        Trial(
            number=number,
            point={"model.hidden_size": size, "training.batch_size": 32},
            key="k",
            until=1,
            state="finished",
            reports=() if score is None else (TrialReport(8, 1, score, 2.0, 3000),),
        )
        for number, (size, score) in enumerate(zip((8, 16), scores, strict=True))
    ]
    settings = {"metric": run.search.metric, "max_epochs": 1}
    record = SearchRecord(name="s", key="k", space=space.description(), settings=settings, identity={}, started_ms=1000)
    scheduler = SearchScheduler(run, space, trials, num_trials=2, prepare=lambda trial: trial)
    return write_artifacts(folder, space, scheduler, record, best_run=lambda trial: best_run(run, trial))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def texts(folder):
    return write(folder, 3.0, 2.5)


def test_the_files_hold_the_texts_that_are_returned(texts, folder):
    assert {name: (folder / name).read_text() for name in ("best.yaml", "trials.csv", "search.html")} == texts


def test_the_best_configuration_has_the_best_trials_point(texts, folder):
    content = yaml.safe_load((folder / "best.yaml").read_text())
    assert (content["name"], content["model"]["hidden_size"]) == ("s-best-0001", 16)


def test_the_table_has_a_column_for_each_key_that_differs(texts, folder):
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [(row["name"], row["model.hidden_size"]) for row in rows] == [("trial-0001", "16"), ("trial-0000", "8")]
    assert "training.batch_size" not in rows[0]


def test_the_page_begins_with_the_outcome_and_the_command_that_trains_the_best(texts, folder):
    shown = [text for text in Page(folder / "search.html").texts if text]
    start = shown.index("best validation loss")
    assert shown[start : start + 12] == [
        "best validation loss", "2.5 nats per word", "best trial", "trial-0001", "trials", "2 finished",
        "epochs", "2 of 2", "time of the trials", "4 s",
        "Train the best settings at full length", f"captioning train --config {folder}/best.yaml",
    ]  # fmt: skip


def test_the_page_has_the_space_with_the_values_of_the_best(texts, folder):
    shown = [text for text in Page(folder / "search.html").texts if text]
    start = shown.index("Search space")
    assert shown[start + 5 : start + 13] == [
        "model.", "hidden_size", "choice([8, 16])", "16", "training.", "batch_size", "32", "32",
    ]  # fmt: skip


def test_without_a_score_there_is_no_best_configuration(tmp_path):
    assert sorted(write(tmp_path, None, None)) == ["search.html", "trials.csv"]
