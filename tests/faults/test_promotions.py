"""Registrations and changes of a champion, killed or at the same time: none is lost or done twice."""

from dataclasses import replace
from itertools import pairwise

import pytest
from mlflow import MlflowClient

from cluster.registry.champion import read_champion_state, reconcile_alias
from cluster.registry.logged_models import UNFINISHED_TAG
from cluster.registry.models import resolve_model
from cluster.registry.versions import list_versions
from cluster.tracking.client import versions_of
from tests.support.cutting_proxy import cutting
from tests.support.promoting_processes import STARTING, change_often, promote_version, register_once
from tests.support.registered_versions import alias_of, make_champion, servable
from tests.support.tracker_process import Tracker

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    server = Tracker(tmp_path_factory.mktemp("tracker"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(tracker):
    return MlflowClient(tracker.uri, tracker.uri)


@pytest.fixture(scope="module")
def run(client, tiny_run, tmp_path_factory):
    """Return a run whose artifacts are a checkpoint as a registered model holds it."""
    folder = tmp_path_factory.mktemp("model")
    servable(tiny_run / "checkpoints" / "step-00000005-attempt-1", folder)
    run = client.create_run("0")
    client.log_artifacts(run.info.run_id, str(folder), "model")
    return run


@pytest.fixture
def name(request, client, run):
    """Return a model's name of the test's own, of which there are eight versions."""
    name = request.node.name.replace("[", "-").replace("]", "")
    client.create_registered_model(name)
    for _ in range(8):
        client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    return name


def is_one_line(changes):
    return all(change.over == before.version for before, change in pairwise(changes))


def test_of_many_changes_at_once_none_is_lost_or_doubled(tracker, client, name):
    pipes = [STARTING.Pipe(duplex=False) for _ in range(4)]
    processes = [
        STARTING.Process(target=change_often, args=(tracker.uri, name, [2 * number + 1, 2 * number + 2], number, told))
        for number, (_, told) in enumerate(pipes)
    ]
    for process, (_, told) in zip(processes, pipes, strict=True):
        process.start()
        told.close()  # so that a process that fails ends the test
    made = [entry for heard, _ in pipes for entry in heard.recv()]
    for process in processes:
        process.join()
    state = read_champion_state(name, client)
    # Two processes that go back to the same version at once both report the one entry that did so.
    assert sorted(set(made)) == [change.entry for change in state.changes]
    assert (is_one_line(state.changes), state.alias) == (True, state.champion)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_that_is_killed_at_any_request_leaves_the_old_champion_or_the_new(tracker, client, name, moment):
    make_champion(name, client, "1")
    outcomes = []
    with cutting(tracker.uri) as (address, cutter):
        while True:
            old, num_changes = alias_of(name, client), len(read_champion_state(name, client).changes)
            new = "2" if old == "1" else "1"
            process = STARTING.Process(target=promote_version, args=(address, name, int(new)))
            cutter.arm(len(outcomes) + 1, moment, process.kill)
            process.start()
            process.join()
            if process.exitcode == 0:
                break
            alias, state = alias_of(name, client), reconcile_alias(name, client)
            is_changed = len(state.changes) > num_changes
            assert (alias in (old, new), state.champion) == (True, new if is_changed else old)
            assert (alias_of(name, client), is_one_line(state.changes)) == (state.champion, True)
            outcomes.append((is_changed, alias == new))
    # Neither before the claim, both at the end, and in between the history alone.
    assert set(outcomes) == {(False, False), (True, False), (True, True)}
    assert outcomes == sorted(outcomes)


def test_an_answer_that_is_lost_changes_the_champion_once(tracker, client, name):
    make_champion(name, client, "1")
    with cutting(tracker.uri) as (address, cutter):
        for number in range(1, 100):
            before = read_champion_state(name, client)
            cutter.arm(number, "after", lambda: None)
            process = STARTING.Process(target=promote_version, args=(address, name, 2 if before.champion == "1" else 1))
            process.start()
            process.join()
            after = read_champion_state(name, client)
            assert (len(after.changes) - len(before.changes), after.alias) == (1, after.champion)
            if cutter.count < number:
                break
    assert cutter.count < number


@pytest.fixture(scope="module")
def checkpoint(client, run, tiny_run):
    """Return a checkpoint of a run that is in this tracker."""
    found = resolve_model(str(tiny_run), client)
    lineage = found.description.lineage | {"mlflow_run_id": run.info.run_id}
    return replace(found, description=replace(found.description, lineage=lineage))


def test_a_registration_that_is_killed_after_any_request_is_finished_by_the_next_command(
    tracker, client, run, checkpoint, tmp_path
):
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    name, number = "killed while it registered", 0
    client.create_registered_model(name)
    client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias(name, "challenger", "1")
    outcomes = []
    with cutting(tracker.uri, only_writes=True) as (address, cutter):
        while len(outcomes) == number:
            number, before = number + 1, versions_of(name, client)
            process = STARTING.Process(target=register_once, args=(address, checkpoint, name, tmp_path))
            cutter.arm(number, "after", process.kill)
            process.start()
            process.join()
            found, alias = versions_of(name, client), client.get_registered_model(name).aliases["challenger"]
            is_made, is_moved = len(found) > len(before), alias != before[-1].version
            assert (len(found) - len(before) <= 1, alias in (before[-1].version, found[-1].version)) == (True, True)
            newest = list_versions(client, name)[0]
            assert (newest.version, newest.aliases) == (found[-1].version, ("challenger",))
            assert not [one for one in versions_of(name, client) if UNFINISHED_TAG in one.tags]
            if process.exitcode:
                outcomes.append((is_made, is_moved))
    # The old version at first, the new one at the end, and in between a version that is not the challenger yet.
    assert (process.exitcode, outcomes, set(outcomes)) == (
        0,
        sorted(outcomes),
        {(False, False), (True, False), (True, True)},
    )
    half = client.search_logged_models(["0"], filter_string=f"tags.`{UNFINISHED_TAG}` = '{name}'")
    assert list(half) == []
