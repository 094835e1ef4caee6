from dataclasses import replace

import pytest

from captioning.data.batches import BadSample
from captioning.training.bad_samples import BadSampleError
from cluster.config import ClusterConfig, StorageConfig
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import Claim
from cluster.runs.journal import Journal, Row
from cluster.runs.record import CommittedCheckpoint, RunRecord
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.trainable import TrialContext, TrialProcess, train_in_process
from cluster.search.trials import Trial, TrialReport, trial_run

LOSSES = {4: 3.0, 8: 2.5, 12: 2.0}


@pytest.fixture
def context(tmp_path):
    run = TuneRun(
        name="s",
        cluster=ClusterConfig(num_workers=1),
        storage=StorageConfig(home=tmp_path),
        search=SearchConfig(num_trials=2, max_epochs=3),
    )
    return TrialContext(run=run, tracking_uri="", num_samples=4 * run.training.batch_size, lineage={})


@pytest.fixture
def trial(context):
    """Return a trial that has trained three epochs, of which the driver has received one."""
    trial = Trial(number=0, point={}, key="k", until=3, reports=(TrialReport(4, 1, 3.0, 1.0, 0),))
    trial.save(context.run.folder)
    run = trial_run(context.run, trial, tracking_uri="")
    checkpoint = CommittedCheckpoint(step=12, attempt=1, metrics={"validation_loss_nats": 2.0})
    RunRecord(name=run.name, identity={}, checkpoints=(checkpoint,), is_finished=True).save(run.folder)
    journal = Journal(run.folder / "journal")
    for step in range(1, 13):
        validated = {"validation_loss_nats": LOSSES[step]} if step in LOSSES else {}
        journal.append(Row(step, 0, {"train_loss_nats": 4.0, **validated}))
    journal.flush()
    return trial


@pytest.fixture
def process():
    """Return a trial's process without the parts of Tune's base class."""
    return object.__new__(TrialProcess)


@pytest.mark.parametrize(("after_step", "steps"), [(0, [4, 8, 12]), (4, [8, 12]), (12, [])])
def test_validations_that_the_driver_lacks_come_from_the_journal(context, trial, after_step, steps):
    run = trial_run(context.run, trial, tracking_uri="")
    found = list(train_in_process(run, context, after_step=after_step))
    assert [(step, metrics["validation_loss_nats"]) for step, metrics in found] == [(x, LOSSES[x]) for x in steps]


def test_a_process_reports_what_the_driver_lacks_and_then_that_its_trial_is_complete(context, trial, process):
    process.setup({"number": 0, "until": 3}, context=context)
    results = [process.step() for _ in range(3)]
    assert [(one.get("step"), one.get("epoch"), one.get("is_complete", False)) for one in results] == [
        (8, 2, False), (12, 3, False), (None, None, True),
    ]  # fmt: skip


def test_a_trial_stops_at_its_rung(context, trial, process):
    process.setup({"number": 0, "until": 2}, context=context)
    assert process.step()["done"] is True


def test_an_error_that_would_come_again_is_the_trials_result(context, trial, process, monkeypatch):
    bad = BadSample("0001", "train-000000.tar", 17, "it has no caption")

    def train(run, context, *, after_step):
        raise BadSampleError(3, [bad], {})
        yield

    monkeypatch.setattr("cluster.search.trainable.train_in_process", train)
    process.setup({"number": 0, "until": 3}, context=context)
    result = process.step()
    path = context.run.folder / "training" / "trial-0000" / "bad-samples" / "step-00000003.json"
    assert (result["done"], path.is_file(), f"; the whole batch is described in {path}" in result["failure"]) == (
        True, True, True,
    )  # fmt: skip


def test_a_trial_whose_checkpoints_were_taken_over_ends_with_that_reason(context, process, tmp_path):
    claim = Claim(CheckpointStore(str(tmp_path / "bucket")), "one", "process 1 on east")
    trial = Trial(number=1, point={}, key="k", until=3, reports=())
    trial.save(context.run.folder)
    run = trial_run(context.run, trial, tracking_uri="")
    RunRecord(name=run.name, identity={}).save(run.folder)
    process.setup({"number": 1, "until": 3}, context=replace(context, claim=claim))
    result = process.step()
    assert (result["done"], "were taken over by another process" in result["failure"]) == (True, True)


def test_an_error_of_storage_is_raised_so_that_tune_starts_the_trial_again(context, trial, process, monkeypatch):
    def train(run, context, *, after_step):
        raise OSError("stale file handle")
        yield

    monkeypatch.setattr("cluster.search.trainable.train_in_process", train)
    process.setup({"number": 0, "until": 3}, context=context)
    with pytest.raises(OSError, match="stale file handle"):
        process.step()


def test_a_process_trains_one_trial_after_another(context, trial, process):
    Trial(number=1, point={}, key="k", until=1, reports=()).save(context.run.folder)
    process.setup({"number": 1, "until": 1}, context=context)
    assert process.reset_config({"number": 0, "until": 3})
    assert process.step()["step"] == 8


def test_a_trial_without_a_record_is_a_fault_of_the_program(context, trial, monkeypatch):
    run = trial_run(context.run, trial, tracking_uri="")
    monkeypatch.setattr("cluster.search.trainable.load_record", lambda folder: None)
    with pytest.raises(
        RuntimeError, match=r"trial-0000 holds no run\.json, which the driver should have written; report"
    ):
        next(train_in_process(run, context))
