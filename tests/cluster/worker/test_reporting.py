import json

import pytest

from captioning.config import TrainingConfig
from captioning.data.batches import BadSample
from captioning.training.collectives import Flags
from captioning.training.loop import StepResult
from cluster.config import StorageConfig, TrainRun
from cluster.coordination.local import LocalCoordinator
from cluster.runs.journal import unshipped
from cluster.runs.record import RunRecord
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.worker.reporting import StepReporter

BAD = BadSample("7", "train-000000.tar", 3, "truncated")


@pytest.fixture
def run(tmp_path):
    """Return a run that has just started."""
    run = TrainRun(name="r", storage=StorageConfig(home=tmp_path), training=TrainingConfig(batch_size=8))
    run.folder.mkdir(parents=True)
    RunRecord(name="r", identity={}).save(run.folder)
    return run


@pytest.fixture
def coordinator(run):
    coordinator = LocalCoordinator(run.folder, keep_best=1, keep_last=1)
    yield coordinator
    coordinator.close()


def result(step, *, bad=()):
    return StepResult(step, 2.0, 30, 8, 1.0, 0.1, Flags(), 0.1, 0.5, bad)


def rows(run, coordinator):
    coordinator.close()
    return [row for _, rows in unshipped(run.folder / "journal") for row in rows]


def test_a_step_is_journalled_with_its_metrics_and_scores(run, coordinator):
    StepReporter(run, coordinator, num_samples=16).report(result(3), {VALIDATION_LOSS: 2.5}, stall_seconds=0.25)
    (row,) = rows(run, coordinator)
    assert (row.step, row.metrics) == (
        3,
        {
            "train_loss_nats": 2.0,
            "gradient_norm": 1.0,
            "learning_rate": 0.1,
            "images_per_second": 16.0,
            "data_wait_share": 0.2,
            "compute_share": 0.8,
            "checkpoint_stall_seconds": 0.25,
            "epoch": 1.5,
            VALIDATION_LOSS: 2.5,
        },
    )


def test_samples_that_are_left_out_are_described_in_a_file(run, coordinator):
    StepReporter(run, coordinator, num_samples=16).report(result(3, bad=(BAD,)), {}, stall_seconds=0.0)
    document = json.loads((run.folder / "bad-samples" / "step-00000003.json").read_text())
    assert (document["step"], [bad["key"] for bad in document["bad"]]) == (3, ["7"])


def test_other_ranks_than_the_first_journal_nothing(run, coordinator):
    coordinator.rank = 1
    StepReporter(run, coordinator, num_samples=16).report(result(3, bad=(BAD,)), {}, stall_seconds=0.0)
    assert (rows(run, coordinator), (run.folder / "bad-samples").exists()) == ([], False)
