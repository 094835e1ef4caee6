import pytest

from cluster.errors import GateRefusal
from cluster.promotion.promotion import promote
from cluster.registry.champion import read_champion_state
from cluster.registry.history import history_name
from cluster.registry.models import resolve_model
from tests.support.registered_versions import add_version, alias_of, judgement, make_champion, servable


@pytest.fixture(scope="module")
def source(tiny_run, tmp_path_factory):
    """Return the source of versions that can be resolved."""
    return servable(tiny_run / "checkpoints" / "step-00000005-attempt-1", tmp_path_factory.mktemp("model"))


@pytest.fixture
def name(request, client):
    """Return a model's name that only this test uses."""
    return request.node.name.replace("[", "-").replace("]", "")


def saying(is_passed, *reasons, seen=None):
    """Return a judge with a fixed decision, which records the versions it was given."""

    def judge(challenger, champion):
        if seen is not None:
            seen.append((challenger.version, champion and champion.version))
        return judgement(is_passed, *reasons)

    return judge


def versions_of(name, client):
    return [change.version for change in read_champion_state(name, client).changes]


def test_a_better_challenger_becomes_champion_with_reason_and_evidence(client, source, name):
    add_version(name, client, source)
    promote(name, client, saying(True), version=1)
    add_version(name, client, source)
    seen = []
    change = promote(name, client, saying(True, "better", "clearly", seen=seen)).change
    assert (seen, alias_of(name, client), change.over, change.kind) == ([("2", "1")], "2", "1", "promoted")
    assert (change.reason, change.evidence) == ("better", judgement(True).evidence)


def test_the_first_champion_is_compared_with_none(client, source, name):
    add_version(name, client, source)
    seen = []
    change = promote(name, client, saying(True, seen=seen)).change
    assert (seen, change.over) == ([("1", None)], None)


def test_a_challenger_that_is_refused_changes_nothing(client, source, name):
    add_version(name, client, source)
    outcome = promote(name, client, saying(False, "worse"))
    assert (outcome.is_promoted, outcome.change.reason, versions_of(name, client)) == (False, "worse", [])


def test_a_forced_challenger_is_on_record_as_such_with_the_evidence(client, source, name):
    add_version(name, client, source)
    change = promote(name, client, saying(False, "worse"), forced_because="a demonstration").change
    assert (change.kind, change.reason, change.evidence) == ("forced", "a demonstration", judgement(False).evidence)


@pytest.mark.parametrize("is_passed", [True, False])
def test_a_dry_run_tells_and_changes_nothing(client, source, name, is_passed):
    add_version(name, client, source)
    outcome = promote(name, client, saying(is_passed), is_dry_run=True)
    assert (outcome.is_promoted, versions_of(name, client), alias_of(name, client)) == (is_passed, [], None)


def test_the_page_of_a_change_shows_the_gates_table(client, source, name):
    add_version(name, client, source)
    promote(name, client, saying(True, "<b>better"))
    assert client.get_model_version(history_name(name), "1").description == (
        "Version 1, promoted over none: \\<b>better\n\n"
        "| criterion | challenger | champion | required | passed |\n| --- | --- | --- | --- | --- |\n"
        "| CIDEr-D | 0.6 | 0.5 | > 0.5\\| | yes |"
    )


def test_who_comes_second_is_judged_again_against_the_new_champion(client, source, name):
    for _ in range(3):
        add_version(name, client, source)
    promote(name, client, saying(True), version=1)
    seen = []

    def judge(challenger, champion):
        seen.append((challenger.version, champion.version))
        if len(seen) == 1:
            promote(name, client, saying(True), version=2)  # another process is faster
        return judgement(champion.version == "1", "the second is no worse")

    outcome = promote(name, client, judge)
    assert (seen, outcome.is_promoted, alias_of(name, client)) == ([("3", "1"), ("3", "2")], False, "2")


def test_a_champion_is_not_promoted_over_itself(client, source, name):
    add_version(name, client, source)
    promote(name, client, saying(True))
    with pytest.raises(GateRefusal, match="version 1 is already the champion"):
        promote(name, client, saying(True))


def test_nothing_is_compared_with_a_champion_that_is_gone(client, source, name):
    make_champion(name, client)
    add_version(name, client, source)
    client.delete_model_version(name, "1")
    with pytest.raises(ValueError, match=r"was deleted from the registry, so no challenger can be compared with it"):
        promote(name, client, saying(True))


def test_a_champion_that_is_gone_is_replaced_by_force(client, source, name):
    make_champion(name, client)
    add_version(name, client, source)
    client.delete_model_version(name, "1")
    seen = []
    promote(name, client, saying(True, seen=seen), forced_because="it was deleted")
    assert (seen, alias_of(name, client)) == ([("2", None)], "2")


def test_a_name_that_was_made_anew_gets_a_champion_by_force(client, source, name):
    make_champion(name, client)
    client.delete_registered_model(name)
    add_version(name, client, source)
    promote(name, client, saying(True), forced_because="it was made anew")
    assert (versions_of(name, client), alias_of(name, client)) == (["1", "1"], "1")


def test_our_commands_mean_the_champion_of_the_history(client, source, name):
    add_version(name, client, source)
    promote(name, client, saying(True))
    client.delete_registered_model_alias(name, "champion")
    assert resolve_model(f"models:/{name}@champion", client).version == "1"


def test_a_model_without_a_champion_is_told(client, source, name):
    add_version(name, client, source)
    with pytest.raises(ValueError, match=r"has no champion yet; captioning promote .* makes one"):
        resolve_model(f"models:/{name}@champion", client)


def test_a_champion_that_is_gone_is_not_resolved(client, source, name):
    make_champion(name, client)
    client.delete_model_version(name, "1")
    with pytest.raises(
        ValueError, match=r"was deleted from the registry; captioning rollback .* restores the previous champion"
    ):
        resolve_model(f"models:/{name}@champion", client)
