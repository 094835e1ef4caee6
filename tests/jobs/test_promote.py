"""Promoting, going back and looking back from the command line, on models that learnt a little."""

import importlib
import json
from contextlib import suppress

import pytest
from mlflow.exceptions import MlflowException

from cluster.data.shard_set import ShardSet
from jobs.cli import run_job
from tests.support.registered_versions import add_version, servable
from tests.support.trained_models import BETTER, WORSE, trained


@pytest.fixture(scope="module")
def sources(tmp_path_factory, drawn_shards):
    """Return where the files of versions lie, by how long they have trained."""
    folder, shard_set = tmp_path_factory.mktemp("models"), ShardSet(drawn_shards)
    for steps in (WORSE, BETTER):
        trained(folder / f"trained-{steps}", shard_set, steps)
    return {steps: servable(folder / f"trained-{steps}", folder / f"model-{steps}") for steps in (WORSE, BETTER)}


@pytest.fixture
def captioning(home, drawn_shards, monkeypatch, capsys):
    """Return a function that runs a command line and returns (exit code, JSON document, standard error)."""
    monkeypatch.setenv("CAPTIONING_HOME", str(home.home))

    def run(job, *arguments):
        arguments = [*map(str, arguments), "--json"]
        if job == "promote":
            arguments += ["--shards", str(drawn_shards), "--num-resamples", "200", "--num-behaviour-images", "4"]
        with pytest.raises(SystemExit) as ended:
            run_job(importlib.import_module(f"jobs.{job}").main, arguments)
        printed = capsys.readouterr()
        return ended.value.code, json.loads(printed.out) if printed.out else None, printed.err

    return run


@pytest.fixture
def name(request, client, sources, captioning):
    """Return a model's name of the test's own, whose champion is version 1, the worse, and challenger 2, the better."""
    name = request.node.name
    add_version(name, client, sources[WORSE])
    captioning("promote", name)
    add_version(name, client, sources[BETTER])
    return name


def champion_of(name, client):
    with suppress(MlflowException):
        return str(client.get_model_version_by_alias(name, "champion").version)


def test_a_better_challenger_is_promoted(captioning, client, name):
    code, document, told = captioning("promote", name)
    change = document["change"]
    assert (code, champion_of(name, client), change["over"], change["kind"]) == (0, "2", "1", "promoted")
    assert change["evidence"]["champion"]["version"] == "1"
    assert f"{name} version 2 is the champion over version 1" in told


def test_a_worse_challenger_is_refused_with_a_code_of_its_own(captioning, client, name):
    captioning("promote", name)
    code, document, complaint = captioning("promote", name, "--version", 1)
    assert (code, document["is_promoted"], champion_of(name, client)) == (3, False, "2")
    assert f"error: {name} version 1 is refused, and the champion stays: CIDEr-D" in complaint


def test_a_worse_challenger_is_forced_and_the_history_says_so(captioning, client, name):
    captioning("promote", name)
    captioning("promote", name, "--version", 1, "--force", "--reason", "a demonstration")
    change = captioning("history", name)[1]["changes"][-1]
    assert (change["kind"], change["reason"], change["evidence"]["is_passed"]) == ("forced", "a demonstration", False)


@pytest.mark.parametrize("flags", [["--force"], ["--reason", "because"], ["--force", "--reason", " "]])
def test_who_forces_says_why(captioning, flags):
    code, _, complaint = captioning("promote", "any", *flags)
    assert (code, "--force and --reason go together" in complaint) == (2, True)


def test_a_dry_promotion_changes_nothing(captioning, client, name):
    code, document, told = captioning("promote", name, "--dry-run")
    assert (code, document["is_promoted"], champion_of(name, client)) == (0, True, "1")
    assert f"{name} version 2 would become the champion over version 1" in told


def test_the_champion_is_not_promoted_again(captioning, name):
    code, _, complaint = captioning("promote", name, "--version", 1)
    assert (code, complaint) == (3, f"error: {name} version 1 is the champion already\n")


def test_a_model_without_a_known_shard_set_needs_one_to_be_named(captioning, client, sources, home, capsys):
    add_version("unknown", client, sources[WORSE])
    with pytest.raises(SystemExit, match="2"):
        run_job(importlib.import_module("jobs.promote").main, ["unknown"])
    assert "names no shard set; give one by --shards" in capsys.readouterr().err


def test_a_rollback_is_on_record(captioning, client, name):
    captioning("promote", name)
    code, document, told = captioning("rollback", name, "--reason", "it is worse at night")
    changes = captioning("history", name)[1]["changes"]
    assert (code, champion_of(name, client), document["change"]) == (0, "1", changes[-1])
    assert [(one["over"], one["version"], one["kind"], one["reason"]) for one in changes[-1:]] == [
        ("2", "1", "rolled back", "it is worse at night"),
    ]
    assert f"{name} version 1 is the champion again, over version 2" in told


def test_a_dry_rollback_changes_nothing(captioning, client, name):
    captioning("promote", name)
    captioning("rollback", name, "--dry-run")
    assert champion_of(name, client) == "2"


def test_the_history_is_a_table(captioning, name, home, capsys):
    captioning("promote", name)
    with pytest.raises(SystemExit, match="0"):
        run_job(importlib.import_module("jobs.history").main, [name])
    table = capsys.readouterr().err
    assert ("none -> 1" in table, "1 -> 2" in table, "whose champion is 2" in table) == (True, True, True)


def test_a_history_tells_of_a_champion_that_is_gone(captioning, client, name):
    client.delete_model_version(name, "1")
    code, document, complaint = captioning("history", name)
    assert (code, document["champion"], "was deleted from the registry" in complaint) == (0, "1", True)


def test_models_are_listed_with_the_scores_that_the_gate_found(captioning, name):
    captioning("promote", name)
    newest, oldest = captioning("models", name)[1]
    assert (newest["version"], newest["aliases"], newest["changes"]) == ("2", ["challenger", "champion"], [2])
    assert newest["scores"]["val"]["scores"]["CIDEr-D"] > oldest["scores"]["val"]["scores"]["CIDEr-D"]


def test_the_ledger_is_not_listed_as_a_model(captioning, name):
    assert f"{name}.history" not in {one["name"] for one in captioning("models")[1]}
