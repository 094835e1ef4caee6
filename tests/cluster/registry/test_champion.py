import logging

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, PERMISSION_DENIED

from cluster.registry.champion import read_champion_state, reconcile_alias
from cluster.registry.history import counting, history_name, is_history
from tests.support.registered_versions import add_version, alias_of, change_to, claim_after, make_champion


@pytest.fixture
def name(request):
    """Return a model's name that only this test uses."""
    return request.node.name.replace("[", "-").replace("]", "")


@pytest.mark.parametrize(
    ("entries", "counted", "last"),
    [
        ([], [], 0),
        ([(1, 0), (2, 1), (3, 2)], [1, 2, 3], 3),
        ([(1, 0), (2, 0), (3, 1)], [1, 3], 3),  # 2 was too late
        ([(1, 0), (2, 1), (3, 1), (4, 1), (5, 2)], [1, 2, 5], 5),
        ([(1, 0), (2, 0)], [1], 1),  # one claim, sent twice
        ([(1, 0), (3, 2)], [1, 3], 3),  # 2 was deleted by hand, and was valid, because 3 follows it
        ([(1, 0), (3, 1), (4, 2)], [1, 4], 4),  # the same, and 3 came too late for it
        ([(1, 0), (3, 1)], [1, 3], 3),  # 2 was deleted, and had come too late
        ([(2, 1), (3, 2)], [2, 3], 3),
        ([(1, 0), (2, 5)], [1], 1),  # after an entry that does not exist
    ],
)
def test_the_first_entry_after_another_counts(entries, counted, last):
    changes, decides = counting([(after, change_to(str(number), entry=number)) for number, after in entries])
    assert ([change.entry for change in changes], decides) == (counted, last)


@pytest.mark.parametrize(
    ("tag", "value"), [("champion", "abc"), ("evidence", "{"), ("evidence", "[" * 5000), ("after_entry", "x")]
)
def test_an_entry_that_was_altered_is_a_warning_and_moves_no_alias(client, name, caplog, tag, value):
    for _ in range(3):
        make_champion(name, client)
    client.set_model_version_tag(history_name(name), "3", tag, value)
    state = reconcile_alias(name, client)
    assert (state.champion, alias_of(name, client), state.fault, state.last) == ("3", "3", "", 3)
    assert f"entry 3 of {history_name(name)} was altered and cannot be read (" in caplog.text


def test_the_history_goes_on_after_an_entry_that_was_altered(client, name):
    for _ in range(2):
        make_champion(name, client)
    client.delete_model_version_tag(history_name(name), "2", "reason")
    made = make_champion(name, client)
    changes = read_champion_state(name, client).changes
    assert ([change.kind for change in changes], made.over) == (["promoted", "unreadable", "promoted"], "2")


def test_a_change_moves_the_alias(client, name):
    make_champion(name, client)
    second = make_champion(name, client)
    assert (alias_of(name, client), second.over, second.entry) == ("2", "1", 2)


def test_a_change_is_on_record_with_all_that_decided_it(client, name, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    made = make_champion(name, client, evidence={"checks": [1.5, None]})
    (change,) = read_champion_state(name, client).changes
    assert (change, change.by, change.evidence) == (made, "ann", {"checks": [1.5, None]})


def test_of_two_changes_decided_at_once_the_first_counts(client, name):
    first, second = add_version(name, client), add_version(name, client)
    state = read_champion_state(name, client)
    outcomes = [claim_after(state, change_to(version), client) for version in (first, second)]
    assert ([outcome and outcome.version for outcome in outcomes], reconcile_alias(name, client).champion) == (
        ["1", None],
        "1",
    )


def test_a_claim_that_was_sent_twice_counts_once(client, name):
    make_champion(name, client)
    entry = client.get_model_version(history_name(name), "1")
    client.create_model_version(history_name(name), entry.source, tags=entry.tags)
    state = read_champion_state(name, client)
    assert ([change.entry for change in state.changes], state.last) == ([1], 1)


def test_an_alias_that_a_killed_process_left_behind_is_set_right(client, name, caplog):
    make_champion(name, client)
    version = add_version(name, client)
    claim_after(read_champion_state(name, client), change_to(version, over="1"), client)  # and then it was killed
    reconcile_alias(name, client)
    assert (alias_of(name, client), "points to version 1, but its history names version 2" in caplog.text) == (
        "2", True,
    )  # fmt: skip


def test_an_alias_moved_by_hand_is_set_right_and_the_command_for_it_named(client, name, caplog):
    make_champion(name, client)
    make_champion(name, client)
    client.set_registered_model_alias(name, "champion", "1")
    reconcile_alias(name, client)
    assert (alias_of(name, client), f"use captioning rollback {name} --to 1" in caplog.text) == (
        "2", True,
    )  # fmt: skip


def test_an_alias_removed_by_hand_is_set_again(client, name, caplog):
    make_champion(name, client)
    client.delete_registered_model_alias(name, "champion")
    reconcile_alias(name, client)
    assert (alias_of(name, client), f"alias champion of {name} is gone" in caplog.text) == ("1", True)


def test_a_dry_run_leaves_the_alias_where_it_is(client, name, caplog):
    make_champion(name, client)
    client.delete_registered_model_alias(name, "champion")
    reconcile_alias(name, client, is_dry_run=True)
    assert (alias_of(name, client), "the alias would be moved there" in caplog.text) == (None, True)


def test_an_alias_in_line_is_not_worth_a_word(client, name, caplog):
    make_champion(name, client)
    reconcile_alias(name, client)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_alias_without_a_history_is_the_champion_that_the_first_entry_replaces(client, name):
    client.set_registered_model_alias(name, "champion", add_version(name, client))
    before = reconcile_alias(name, client).champion
    assert (before, make_champion(name, client).over) == ("1", "1")


def test_a_champion_that_was_deleted_is_told(client, name):
    make_champion(name, client)
    client.delete_model_version(name, "1")
    state = reconcile_alias(name, client)
    assert (state.is_lost, state.fault) == (
        True, f"version 1 of {name}, champion by entry 1 of the history, was deleted from the registry",
    )  # fmt: skip


def test_another_version_under_the_champions_number_is_told(client, name):
    make_champion(name, client)
    client.delete_registered_model(name)
    add_version(name, client, "elsewhere")
    state = reconcile_alias(name, client)
    assert (state.is_lost, alias_of(name, client)) == (True, None)
    assert state.fault.endswith("was replaced by another version with its number")


def test_a_version_that_was_deleted_is_not_made_champion(client, name):
    version = add_version(name, client)
    client.delete_model_version(name, version)
    with pytest.raises(RuntimeError, match=r"MLflow did not confirm the change of .*'s champion .*captioning history"):
        claim_after(read_champion_state(name, client), change_to(version), client)


def test_a_history_is_told_from_models(client, name):
    make_champion(name, client)
    assert [is_history(client.get_registered_model(one)) for one in (name, history_name(name))] == [False, True]


def test_a_model_of_the_historys_name_is_left_alone(client, name):
    client.create_registered_model(history_name(name))
    with pytest.raises(
        ValueError, match=r"the registered model .*\.history is not the history of .*; rename one of the two"
    ):
        make_champion(name, client)


def test_what_else_lies_in_a_history_is_left_out(client, name):
    make_champion(name, client)
    client.create_model_version(history_name(name), "nowhere")
    make_champion(name, client)
    assert [change.entry for change in read_champion_state(name, client).changes] == [1, 3]


@pytest.mark.parametrize("unknown", ["nobody", "o'b"])
def test_a_model_that_there_is_not_is_named(client, unknown):
    with pytest.raises(ValueError, match=f"model {unknown} cannot be read from the registry"):
        reconcile_alias(unknown, client)


class Refused(MlflowClient):
    """Client of which the first requests to set an alias are refused, as MLflow refuses one of two at once."""

    def __init__(self, client, codes):
        super().__init__(client.tracking_uri, client.tracking_uri)
        self._codes = list(codes)

    def set_registered_model_alias(self, *arguments):
        if self._codes:
            raise MlflowException("UNIQUE constraint failed", error_code=self._codes.pop())
        super().set_registered_model_alias(*arguments)


@pytest.mark.parametrize(
    ("codes", "alias"), [([], "1"), ([BAD_REQUEST], "1"), ([BAD_REQUEST] * 2, None), ([PERMISSION_DENIED], None)]
)
def test_an_alias_that_another_process_sets_at_the_same_time_is_tried_again(client, name, codes, alias):
    change = change_to(add_version(name, client))
    claim_after(read_champion_state(name, client), change, client)
    state = reconcile_alias(name, Refused(client, codes))
    assert (alias_of(name, client), "the alias cannot be moved to it" in state.fault) == (alias, alias is None)
