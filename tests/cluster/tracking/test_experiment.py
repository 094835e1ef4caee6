"""The experiment of the runs: made once, with the view of their curves."""

import pytest

from cluster.config import TrackingConfig
from cluster.tracking.charts import VIEW_TAG
from cluster.tracking.experiment import Places, experiment_id, places_of_newest


def test_the_experiment_is_made_once(client, home):
    assert experiment_id(client, TrackingConfig(), home) == experiment_id(client, TrackingConfig(), home)


def test_a_deleted_experiment_is_refused_with_the_command_that_restores_it(client, home):
    config = TrackingConfig(experiment="deleted")
    found = experiment_id(client, config, home)
    client.delete_experiment(found)
    with pytest.raises(ValueError, match=rf"experiment deleted was deleted .*restore --experiment-id {found}, or use"):
        experiment_id(client, config, home)


def test_an_experiment_of_an_earlier_release_gets_the_view_and_keeps_what_somebody_made_of_it(client, home):
    config = TrackingConfig(experiment="earlier")
    found = client.create_experiment("earlier")
    experiment_id(client, config, home)
    was_made = VIEW_TAG in client.get_experiment(found).tags
    client.set_experiment_tag(found, VIEW_TAG, "mine")
    experiment_id(client, config, home)
    assert (was_made, client.get_experiment(found).tags[VIEW_TAG]) == (True, "mine")


def test_the_page_to_open_is_that_of_the_newest_experiments_runs(client):
    experiment = client.create_experiment("the newest")
    assert places_of_newest(client) == Places(f"#/experiments/{experiment}/runs?workflowType=machine_learning", "")


def test_the_curves_of_the_newest_experiment_are_a_page_if_it_has_the_view(client, home):
    experiment = experiment_id(client, TrackingConfig(experiment="the newest with curves"), home)
    assert places_of_newest(client).curves.startswith(f"#/experiments/{experiment}/runs?compareRunsMode=CHART&")
