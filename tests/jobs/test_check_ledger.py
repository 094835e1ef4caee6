"""``captioning check --ledger-of``, which audits that a run trained on each sample once an epoch."""

import json

import pytest

from cluster.config import TrainRun
from cluster.runs.identity import config_text
from cluster.runs.record import CommittedCheckpoint, RunRecord
from cluster.runs.sample_ledger import SampleLedger
from jobs.cli import call
from shards.manifest import load_manifest
from tests.support.short_runs import short_run


@pytest.fixture
def run(drawn_shards, tmp_path) -> TrainRun:
    """Return a run with a record of one training step."""
    run = short_run(drawn_shards, tmp_path, name="audited")
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(config_text(run))
    RunRecord(name=run.name, identity={}, checkpoints=(CommittedCheckpoint(step=1, attempt=1),)).save(run.folder)
    return run


def record(run, keys):
    ledger = SampleLedger(run.folder / "ledger", attempt=1, rank=0, resumed_at=0)
    ledger.add(1, keys)
    ledger.close()


@pytest.mark.parametrize("by", ["name", "folder"])
def test_a_whole_ledger_is_told_in_numbers(run, capsys, by):
    record(run, [f"{number}" for number in range(15)])
    named = [run.name, "--home", str(run.storage.home)] if by == "name" else [str(run.folder)]
    call("check", ["--ledger-of", *named, "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "num_steps": 1,
        "num_epochs": 0,
        "num_samples": load_manifest(run.shards).splits["train"],
        "num_lost": 0,
        "num_repeated": 0,
        "num_redone": 0,
    }


def test_a_sample_that_is_lost_fails_the_command(run):
    record(run, [f"{number}" for number in range(14)])
    with pytest.raises(RuntimeError, match=r"were lost or repeated \(steps: 1, .* samples lost: 1, repeated: 0"):
        call("check", ["--ledger-of", str(run.folder)])
