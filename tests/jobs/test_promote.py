"""``captioning promote`` from the command line, on models that were trained for a few steps."""

import pytest

from tests.support.html import Page
from tests.support.registered_versions import add_version, alias_of, make_champion
from tests.support.trained_models import WORSE


def test_a_better_challenger_is_promoted(registry_job, registry_client, registry_home, name):
    code, document, told = registry_job("promote", name)
    change = document["change"]
    assert (code, alias_of(name, registry_client), change["over"], change["kind"]) == (0, "2", "1", "promoted")
    assert change["evidence"]["champion"]["version"] == "1"
    assert f"{name} version 2 is now the champion (replacing version 1)" in told
    page = registry_home / "versions" / f"{name}-2" / "model.html"
    assert {"Pictures that differ most", f"{name} version 2"} <= set(Page(page).texts)
    assert "CIDEr-D against version 1" in Page(page).texts


def test_a_worse_challenger_is_refused_with_a_code_of_its_own(registry_job, registry_client, name):
    make_champion(name, registry_client, "2")
    code, document, complaint = registry_job("promote", name, "--version", 1)
    assert (code, document["is_promoted"], alias_of(name, registry_client)) == (3, False, "2")
    assert f"error: {name} version 1 is refused; the champion is unchanged: CIDEr-D" in complaint


def test_without_a_champion_a_refusal_does_not_speak_of_one(registry_job, registry_client, trained_sources):
    add_version("first", registry_client, trained_sources[WORSE])
    code, _, complaint = registry_job("promote", "first", "--floors", "BLEU-4", 0.99)
    assert (code, "first version 1 is refused; there is still no champion: BLEU-4 0." in complaint) == (3, True)
    assert "is below the floor 0.99 (--floors)" in complaint


def test_a_worse_challenger_is_forced_and_the_history_says_so(registry_job, registry_client, name):
    make_champion(name, registry_client, "2")
    registry_job("promote", name, "--version", 1, "--force", "--reason", "a demonstration")
    change = registry_job("history", name)[1]["changes"][-1]
    assert (change["kind"], change["reason"], change["evidence"]["is_passed"]) == ("forced", "a demonstration", False)


@pytest.mark.parametrize("flags", [["--force"], ["--reason", "because"], ["--force", "--reason", " "]])
def test_who_forces_says_why(registry_job, flags):
    code, _, complaint = registry_job("promote", "any", *flags)
    assert (code, "--force and --reason must be given together" in complaint) == (2, True)


def test_a_dry_promotion_changes_nothing(registry_job, registry_client, name):
    code, document, told = registry_job("promote", name, "--dry-run")
    assert (code, document["is_promoted"], alias_of(name, registry_client)) == (0, True, "1")
    assert f"{name} version 2 would become the champion (replacing version 1)" in told


def test_the_champion_is_not_promoted_again(registry_job, name):
    code, _, complaint = registry_job("promote", name, "--version", 1)
    assert (code, complaint) == (3, f"error: {name} version 1 is already the champion\n")


def test_a_model_without_a_known_shard_set_needs_one_to_be_named(
    captioning, registry_client, trained_sources, registry_home
):
    add_version("unknown", registry_client, trained_sources[WORSE])
    code, _, complaint = captioning("promote", "unknown", "--home", registry_home)
    assert (code, "names no shard set; pass one with --shards" in complaint) == (2, True)
