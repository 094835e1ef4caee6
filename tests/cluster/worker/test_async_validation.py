"""Actors that are lost while they score; ``integration/test_training`` scores beside a real training run."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, OutOfMemoryError

from captioning.config import TrainingConfig
from captioning.evaluation.health import scores_of
from captioning.training.checkpoint_description import describe_checkpoint
from cluster.config import StorageConfig, TrainRun, ValidationConfig
from cluster.runs.record import CommittedCheckpoint
from cluster.worker import async_validation
from cluster.worker.async_validation import _Scorer, score_checkpoint, score_with
from shards.reader import ShardReader

CHECKPOINT, REAL = CommittedCheckpoint(step=8, attempt=1), CommittedCheckpoint(step=5, attempt=1)
SCORES = {"validation_loss_nats": 3.0}


@pytest.fixture
def score(monkeypatch):
    """Return a function that scores with actors which end as given, and returns the result and the killed actors."""

    def run(*outcomes):
        killed, left = [], list(outcomes)

        def get(outcome, timeout):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        def start():
            outcome = left.pop(0)
            return SimpleNamespace(score=SimpleNamespace(remote=lambda *_: outcome))

        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "kill", killed.append)
        return score_with(start, TrainRun(name="r"), CHECKPOINT), len(killed)

    return run


@pytest.mark.parametrize("loss", [ActorDiedError(), OutOfMemoryError("low on memory"), GetTimeoutError("no answer")])
def test_a_checkpoint_is_scored_again_when_the_actor_is_lost(score, loss):
    assert score(loss, SCORES) == (SCORES, 2)


def test_a_checkpoint_that_cannot_be_scored_is_not_tried_again(score):
    assert score("ValueError: no such split", SCORES) == ("ValueError: no such split", 1)


def test_actors_that_are_lost_again_and_again_give_the_reason(score):
    reason, num_killed = score(*[OutOfMemoryError("Task was killed, low on memory.\nTop 10 users")] * 3)
    assert (reason.partition(" (")[0], num_killed) == (
        "3 processes were lost in a row, the last with: memory ran out", 3,
    )  # fmt: skip


@pytest.fixture
def run(tiny_run, drawn_shards, monkeypatch, one_thread):
    """Return a run whose third validation image does not decode."""
    read = ShardReader.read
    monkeypatch.setattr(
        ShardReader,
        "read",
        lambda self, number: read(self, number)._replace(**({"jpeg": b"no image"} if number == 2 else {})),
    )
    checkpoint = describe_checkpoint(tiny_run / "checkpoints" / "step-00000005-attempt-1")
    return TrainRun(
        name="r",
        shards=drawn_shards,
        model=checkpoint.model,
        validation=ValidationConfig(beam_size=1),
        storage=StorageConfig(home=tiny_run.parent.parent),
    )


def test_a_bad_image_is_left_out_beside_training_as_it_is_by_the_workers(run, caplog):
    scores = score_checkpoint(replace(run, training=TrainingConfig(on_bad_sample="skip")), REAL)
    assert scores_of(scores).keys() == {
        "validation_loss_nats", "validation_bleu_4", "validation_rouge_l", "validation_cider_d",
    }  # fmt: skip
    assert scores["health_captions"] == 29
    assert "1 of 30 images are left out, because they do not decode (first: " in caplog.text


def test_a_bad_image_without_leave_to_skip_it_is_told(run):
    assert "BadSampleError" in str(_Scorer().score(run, REAL))


@pytest.mark.parametrize("error", [ValueError("no such\nsplit"), MemoryError()])
def test_an_error_of_scoring_is_told_unless_memory_ran_out(monkeypatch, error):
    def fail(run, checkpoint):
        raise error

    monkeypatch.setattr(async_validation, "score_checkpoint", fail)
    if isinstance(error, MemoryError):
        with pytest.raises(MemoryError):
            _Scorer().score(TrainRun(name="r"), CHECKPOINT)
    else:
        assert _Scorer().score(TrainRun(name="r"), CHECKPOINT) == "ValueError: no such split"
