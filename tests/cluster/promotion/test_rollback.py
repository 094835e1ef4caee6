import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from cluster.promotion.promotion import rollback
from cluster.registry.champion import read_champion_state
from tests.support.registered_versions import add_version, alias_of, make_champion


@pytest.fixture
def name(request):
    """Return a model's name that only this test uses."""
    return request.node.name.replace("[", "-").replace("]", "")


def versions_of(name, client):
    return [change.version for change in read_champion_state(name, client).changes]


@pytest.mark.parametrize(
    "steps",
    [
        # What happens, and the version that a rollback would then go to, if that is looked at.
        [(1, None), (2, "1"), (3, "2"), ("back", "1"), (4, "2")],  # after "back" not to 3, which was gone back from
        [(1, None), (2, None), (3, None), ("deleted 2", "1")],
        [(1, None), (2, None), (1, "2")],
        [(1, None), (2, None), ("deleted 2", "1")],
        [(1, None), (2, None), (3, None), ("back", None), ("back", None), (3, "1")],
    ],
)
def test_a_rollback_goes_to_the_champion_before(client, name, steps):
    for _ in range(max(step for step, _ in steps if isinstance(step, int))):
        add_version(name, client)
    for step, back_to in steps:
        if step == "back":
            rollback(name, client)
        elif isinstance(step, str):
            client.delete_model_version(name, step.split()[1])
        else:
            make_champion(name, client, str(step))
        assert back_to is None or rollback(name, client, is_dry_run=True).version == back_to
    change = rollback(name, client, reason="it is worse at night")
    assert (change.version, change.kind, alias_of(name, client)) == (back_to, "rolled back", back_to)


def test_a_rollback_goes_to_any_former_champion(client, name):
    for _ in range(3):
        make_champion(name, client)
    change = rollback(name, client, to=1)
    assert (change.over, change.reason, alias_of(name, client)) == ("3", "no reason given", "1")


def test_a_rollback_to_the_champion_changes_nothing(client, name):
    made = make_champion(name, client)
    assert (rollback(name, client, to=1), versions_of(name, client)) == (made, ["1"])


def test_a_rollback_that_is_tried_changes_nothing(client, name):
    for _ in range(2):
        make_champion(name, client)
    change = rollback(name, client, is_dry_run=True)
    assert (change.version, versions_of(name, client)) == ("1", ["1", "2"])


def test_the_first_champion_has_none_before_it(client, name):
    make_champion(name, client)
    with pytest.raises(ValueError, match=r"has no champion before version 1; captioning models .* lists its"):
        rollback(name, client)


class Overtaken(MlflowClient):
    """Client for which another process always adds an entry to the history just before."""

    def __init__(self, client, version):
        super().__init__(client.tracking_uri, client.tracking_uri)
        self._client, self._version = client, version

    def create_model_version(self, name, *arguments, **options):
        make_champion(name.removesuffix(".history"), self._client, self._version)
        return super().create_model_version(name, *arguments, **options)


def test_two_who_roll_back_at_once_go_back_once(client, name):
    for _ in range(3):
        make_champion(name, client)
    change = rollback(name, Overtaken(client, "2"))
    assert (change.version, change.entry, versions_of(name, client)) == ("2", 4, ["1", "2", "3", "2"])


def test_a_rollback_does_not_undo_a_change_that_it_did_not_see(client, name):
    for _ in range(3):
        make_champion(name, client)
    with pytest.raises(
        RuntimeError, match=r"version 1 became the champion of .* in the meantime, by .*; look at captioning"
    ):
        rollback(name, Overtaken(client, "1"))


def test_a_rollback_past_the_gate_is_refused(client, name):
    make_champion(name, client)
    add_version(name, client)
    with pytest.raises(ValueError, match=r"version 2 was never champion of .*; captioning promote .* --version 2"):
        rollback(name, client, to=2)


def test_a_rollback_to_a_version_that_is_gone_is_refused(client, name):
    for _ in range(2):
        make_champion(name, client)
    client.delete_model_version(name, "1")
    with pytest.raises(ValueError, match=r"/1 is not in the registry"):
        rollback(name, client, to=1)


def made_anew(name, client):
    """Make two champions, then delete the model and create it again with two versions."""
    for _ in range(2):
        make_champion(name, client)
    client.delete_registered_model(name)
    for _ in range(2):
        add_version(name, client, "elsewhere")


def test_a_rollback_to_another_version_of_the_number_is_refused(client, name):
    made_anew(name, client)
    with pytest.raises(ValueError, match=r"version 1 of .* is not the one that was champion: .*; captioning promote"):
        rollback(name, client, to=1)


def test_without_a_champion_there_is_none_before_it(client, name):
    add_version(name, client)
    with pytest.raises(ValueError, match=f"^{name} has no champion; captioning models {name} lists its versions"):
        rollback(name, client)


def test_no_other_version_of_its_number_is_the_champion_before(client, name):
    made_anew(name, client)
    with pytest.raises(ValueError, match="has no champion before version 2"):
        rollback(name, client)


class Forbidden(MlflowClient):
    """Client that may write entries, but not move an alias."""

    def set_registered_model_alias(self, *arguments):
        raise MlflowException("not yours", error_code=PERMISSION_DENIED)


def test_a_change_whose_alias_cannot_be_moved_fails_and_counts(client, name):
    for _ in range(2):
        make_champion(name, client)
    with pytest.raises(RuntimeError, match=r"version 1 is the champion of .*, but the alias cannot be moved to it"):
        rollback(name, Forbidden(client.tracking_uri, client.tracking_uri))
    assert versions_of(name, client) == ["1", "2", "1"]
