import json
from dataclasses import replace

import pytest
import yaml

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.training.checkpoint_description import describe_checkpoint
from cluster.config import ClusterConfig
from cluster.runs.record import load_record
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.trials import load_trials
from cluster.search.tuner import tune
from cluster.tracking.client import connect

MODEL = ModelConfig(
    backbone="squeezenet1_1", weights="none", image_size_px=64, embedding_size=16, hidden_size=16, dropout=0.1
)
SPACE = "optimizer.learning_rate: choice([1e-5, 1e-2])\nmodel.hidden_size: choice([8, 16])\n"
NUM_EPOCHS, STEPS_PER_EPOCH = 3, 4


@pytest.fixture(scope="module")
def run(drawn_shards, home):
    (home.home / "search.yaml").write_text(SPACE)
    return TuneRun(
        name="grid",
        shards=drawn_shards,
        model=MODEL,
        optimizer=OptimizerConfig(warmup_steps=1),
        training=TrainingConfig(batch_size=30),
        cluster=ClusterConfig(num_workers=1),
        storage=home,
        search=SearchConfig(
            space=home.home / "search.yaml", num_trials=9, max_epochs=NUM_EPOCHS, sampler="grid", scheduler="none"
        ),
    )


@pytest.fixture(scope="module")
def shown():
    return []


@pytest.fixture(scope="module")
def outcome(run, session, shown):
    return tune(run, show=shown.append)


@pytest.fixture(scope="module")
def runs(run, outcome):
    """Return the parent run and the child runs in MLflow, by name."""
    client = connect(run.tracking, run.storage)
    experiment = client.get_experiment_by_name("captioning")
    found = {one.info.run_id: one for one in client.search_runs([experiment.experiment_id])}
    parent = found.pop(outcome.mlflow_run_id)
    children = [one for one in found.values() if one.data.tags.get("mlflow.parentRunId") == outcome.mlflow_run_id]
    return parent, {one.info.run_name: one for one in children}


pytestmark = pytest.mark.cluster


def test_a_grid_tries_each_point_once(run, outcome):
    points = {tuple(trial.point.values()) for trial in load_trials(run.folder)}
    assert (outcome.num_trials, points) == (4, {(rate, size) for rate in (1e-5, 1e-2) for size in (8, 16)})


def test_every_trial_has_its_epochs(run, outcome):
    epochs = [[report.epoch for report in trial.reports] for trial in load_trials(run.folder)]
    assert (epochs, outcome.num_epochs) == ([[1, 2, 3]] * 4, 12)


def test_the_best_trial_learned(run, outcome):
    best = min(load_trials(run.folder), key=lambda trial: trial.best("min"))
    assert (outcome.best_trial, outcome.best_point["optimizer.learning_rate"]) == (best.name, 1e-2)


def test_a_trial_is_an_ordinary_run_that_is_finished(run, outcome):
    record = load_record(run.folder / "training" / "trial-0002")
    assert (record.is_finished, record.latest.step) == (True, NUM_EPOCHS * STEPS_PER_EPOCH)


def test_a_trials_checkpoint_names_its_mlflow_run(run, runs, outcome):
    _, children = runs
    latest = load_record(run.folder / "training" / "trial-0002").latest
    found = describe_checkpoint(run.folder / "training" / "trial-0002" / "checkpoints" / latest.name)
    assert found.lineage["mlflow_run_id"] == children["trial-0002"].info.run_id


def test_the_best_configuration_trains(run, outcome):
    content = yaml.safe_load(outcome.best_config.read_text())
    assert (content["optimizer"]["learning_rate"], content["training"]["num_epochs"], content["name"]) == (
        1e-2, 10.0, f"grid-best-{outcome.best_trial[-4:]}",
    )  # fmt: skip


def test_the_tracker_has_a_parent_with_a_child_a_trial(runs, outcome):
    parent, children = runs
    assert (parent.info.status, sorted(children), {one.info.status for one in children.values()}) == (
        "FINISHED", [f"trial-{number:04d}" for number in range(4)], {"FINISHED"},
    )  # fmt: skip


def test_a_child_has_the_whole_configuration_and_every_step_once(run, runs):
    _, children = runs
    child = children["trial-0001"]
    history = connect(run.tracking, run.storage).get_metric_history(child.info.run_id, "train_loss_nats")
    assert ([one.step for one in history], child.data.params["model.hidden_size"]) == (
        list(range(1, NUM_EPOCHS * STEPS_PER_EPOCH + 1)), "16",
    )  # fmt: skip


def test_the_parent_has_what_was_searched_and_the_best_score_over_epochs_spent(run, runs, outcome):
    parent, _ = runs
    history = connect(run.tracking, run.storage).get_metric_history(parent.info.run_id, "best_validation_loss_nats")
    assert (parent.data.params["space.model.hidden_size"], history[-1].step, history[-1].value) == (
        "choice([8, 16])", 12, outcome.score,
    )  # fmt: skip


def test_the_parent_says_which_trial_is_the_best(runs, outcome):
    parent, _ = runs
    assert parent.data.tags["mlflow.note.content"].startswith(f"best: {outcome.best_trial} with ")


def test_the_parent_has_the_searchs_files(run, runs):
    parent, _ = runs
    names = [one.path for one in connect(run.tracking, run.storage).list_artifacts(parent.info.run_id)]
    assert names == ["best.yaml", "search.html", "trials.csv"]


def test_progress_was_shown_to_the_end(outcome, shown):
    assert (len(shown[-1].trials), shown[-1].num_epochs_done) == (4, 12)


def test_the_same_search_again_trains_nothing(run, outcome):
    before = load_trials(run.folder)
    again = tune(run)
    assert (again.best_trial, load_trials(run.folder)) == (outcome.best_trial, before)


def test_a_search_of_another_space_is_refused_with_the_difference(run, outcome, tmp_path):
    (tmp_path / "search.yaml").write_text(SPACE.replace("16", "32"))
    other = replace(run, search=replace(run.search, space=tmp_path / "search.yaml"))
    with pytest.raises(ValueError, match=r"model.hidden_size choice\(\[8, 16\]\) -> choice\(\[8, 32\]\)"):
        tune(other)


@pytest.fixture(scope="module")
def fails(run, session, tmp_path_factory):
    """Return a search by CIDEr-D, one of whose two trials cannot be, and its outcome."""
    space = tmp_path_factory.mktemp("fails") / "search.yaml"
    space.write_text("model.image_size_px: choice([4, 64])\n")
    search = replace(run.search, space=space, max_epochs=1, metric="validation_cider_d")
    fails = replace(run, name="fails", search=search)
    return fails, tune(fails)


def test_a_trial_that_cannot_be_is_marked_failed_and_the_search_continues(fails):
    trials = load_trials(fails[0].folder)
    assert ([trial.state for trial in trials], "ValueError" in trials[0].reason, fails[1].best_trial) == (
        ["failed", "finished"], True, "trial-0001",
    )  # fmt: skip


def test_cider_d_is_a_metric(fails):
    search, outcome = fails
    record = load_record(search.folder / "training" / outcome.best_trial)
    assert record.best.metrics["validation_cider_d"] == outcome.score


def test_a_search_without_any_score_fails_with_the_first_reason(run, session, tmp_path):
    (tmp_path / "search.yaml").write_text("model.image_size_px: 4\n")
    search = replace(run.search, space=tmp_path / "search.yaml", num_trials=1, max_epochs=1)
    with pytest.raises(RuntimeError, match=r"no trial of search none has a score; .*trial-0000: ValueError"):
        tune(replace(run, name="none", search=search))


def test_trials_of_several_workers_run_under_ray_train(run, session):
    several = replace(
        run, name="nested", cluster=replace(run.cluster, num_workers=2),
        search=replace(run.search, sampler="random", num_trials=1, max_epochs=5),
    )  # fmt: skip
    tune(several)
    (trial,) = load_trials(several.folder)
    assert (trial.state, [report.epoch for report in trial.reports]) == ("finished", [1, 2, 3, 4, 5])


def test_only_the_best_are_promoted_where_trials_are_compared(run, session):
    halved = replace(run, name="halved", search=replace(run.search, scheduler="asha", reduction_factor=2))
    outcome = tune(halved)
    trials = load_trials(halved.folder)
    epochs = sorted(trial.epochs for trial in trials)
    states = {trial.state for trial in trials if trial.epochs < NUM_EPOCHS}
    client = connect(run.tracking, run.storage)
    statuses = {client.get_run(trial.mlflow_run_id).info.status for trial in trials}
    # Which trials are promoted depends on which report first; one of four never is, and one trains to the end.
    assert (epochs[0], epochs[-1], states, statuses) == (1, NUM_EPOCHS, {"stopped"}, {"FINISHED"})
    assert outcome.num_epochs == sum(epochs)


def test_more_workers_a_trial_than_the_cluster_has_are_refused(run, session):
    many = replace(run, name="many", cluster=replace(run.cluster, num_workers=30, cpus_per_worker=4))
    with pytest.raises(ValueError, match="30 workers of 4 CPU do not fit"):
        tune(many)


def test_the_record_of_a_search_is_json(run, outcome):
    content = json.loads((run.folder / "search.json").read_text())
    assert (content["is_finished"], content["mlflow_run_id"]) == (True, outcome.mlflow_run_id)
