"""The alias challenger, and registrations that end in the middle."""

import pytest
from mlflow.exceptions import MlflowException

from cluster.registry.logged_models import UNFINISHED_TAG, logged_model_id, record_of
from cluster.registry.models import find_version
from cluster.registry.registration import register
from cluster.registry.versions import list_versions, version_of
from cluster.tracking.client import versions_of
from tests.support.dying_client import DyingClient, Killed


def begun(name, model, client):
    """Leave a version that is registered but for its alias, as a killed process does."""
    created = register(model, name, client)
    client.set_model_version_tag(name, created.version, UNFINISHED_TAG, name)
    client.set_logged_model_tags(logged_model_id(created), {UNFINISHED_TAG: name})
    client.delete_registered_model_alias(name, "challenger")
    return created


@pytest.mark.parametrize(
    "command",
    [
        lambda name, model, client: list_versions(client, name),
        lambda name, model, client: find_version(f"models:/{name}@challenger", client),
        lambda name, model, client: version_of(model, name, client),
        lambda name, model, client: register(model, name, client),
    ],
    ids=["models", "promote", "tune", "register"],
)
def test_the_next_command_finishes_a_registration(client, model, name, command):
    name = name.partition("[")[0]
    created = begun(name, model, client)
    command(name, model, client)
    assert client.get_registered_model(name).aliases == {"challenger": created.version}
    (found,) = [one for one in versions_of(name, client) if one.version == created.version]
    assert UNFINISHED_TAG not in record_of(found, client)


def test_a_dry_run_leaves_a_registration_as_it_is(client, model, name):
    begun(name, model, client)
    list_versions(client, name, is_dry_run=True)
    with pytest.raises(ValueError, match="challenger is not in the registry"):
        find_version(f"models:/{name}@challenger", client, is_dry_run=True)
    assert client.get_registered_model(name).aliases == {}


def test_an_older_registration_does_not_become_the_challenger(client, model, name):
    created = begun(name, model, client)
    newest = client.create_model_version(name, "nowhere")
    client.set_registered_model_alias(name, "challenger", newest.version)
    (found, _) = list_versions(client, name)
    assert (found.version, found.aliases) == (f"{newest.version}", ("challenger",))
    assert UNFINISHED_TAG not in client.get_model_version(name, created.version).tags


def test_a_registration_without_its_logged_model_is_a_warning(client, model, name, caplog):
    created = begun(name, model, client)
    client.delete_logged_model(logged_model_id(created))
    list_versions(client, name)
    assert f"the registration of {name} version 1 is not finished: LoggedModel m-" in caplog.text


def states(name, model, client):
    """Return (challenger, versions, LoggedModels that are neither ready nor a version's)."""
    try:
        alias = client.get_registered_model(name).aliases.get("challenger")
    except MlflowException:
        return None, [], []
    found = versions_of(name, client)
    run = client.get_run(model.mlflow_run_id)
    wanted = f"tags.`{UNFINISHED_TAG}` = '{name}'"
    half = client.search_logged_models([run.info.experiment_id], filter_string=wanted)
    return alias, [one.version for one in found], [one.model_id for one in half]


@pytest.mark.cluster
def test_a_process_that_is_killed_between_any_requests_is_finished_by_the_same_command(client, model, name):
    num_requests, has_died = 0, True
    while has_died:
        one = f"{name}-{num_requests}"
        try:
            register(model, one, DyingClient(client, num_requests))
            has_died = False
        except Killed:
            alias, before, _ = states(one, model, client)
            assert before in ([], [1]) if alias is None else before == [alias]
            is_finished = alias is not None and UNFINISHED_TAG not in client.get_model_version(one, alias).tags
            created = register(model, one, client)
            after = states(one, model, client)
            assert after == (created.version, [*range(1, 2 + is_finished)], [])
        num_requests += 1
    assert num_requests > 15
