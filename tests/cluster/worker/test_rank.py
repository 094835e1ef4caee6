"""A rank that trains alone: where it resumes, how often it fetches and hashes a checkpoint for that, and its end."""

import re
import shutil
from dataclasses import replace

import fsspec
import pytest
import torch

from captioning.evaluation.health import scores_of
from captioning.training import checkpoint_description
from cluster.config import ClusterConfig, StorageConfig, ValidationConfig
from cluster.coordination.local import LocalCoordinator
from cluster.coordination.messages import WorkerConfig
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import Claim, ClaimLostError
from cluster.runs.record import RunRecord, load_record, store_of
from cluster.runs.score_history import LAST_VALIDATION_LOSS, VALIDATION_LOSS
from cluster.worker.rank import RankContext, Validation
from cluster.worker.start import start_rank
from tests.support.short_runs import short_run

STORES = ["folder", "memory://resume"]
MEMORY = fsspec.filesystem("memory")
FILES = ["config.yaml", "last.safetensors", "model.safetensors", "optimizer.pt", "vocabulary.txt"]


def rank_of(run, claim=None):
    """Return a rank that trains alone, ready to train; the caller closes its coordinator."""
    coordinator = LocalCoordinator(run.folder, keep_best=3, keep_last=3)
    config = WorkerConfig(run=run, coordinator=None, config_text="", lineage={}, claim=claim)
    return start_rank(config, coordinator, RankContext())


@pytest.fixture(scope="module", params=STORES)
def trained(request, drawn_shards, tmp_path_factory):
    """Return a run of a few steps, with checkpoints in its folder or at a URL, trained to its first validation.

    Beside it, copies of its folder and of what is stored at the URL.
    """
    location = None if request.param == "folder" else request.param
    home = tmp_path_factory.mktemp("home")
    run = short_run(drawn_shards, home, name="resumed", cluster=ClusterConfig(num_workers=1))
    training = replace(run.training, num_epochs=0.5, checkpoint_every_steps=2, ema_decay=0.9)
    run = replace(run, training=training, storage=StorageConfig(home=home, checkpoints=location))
    run.folder.mkdir(parents=True)
    RunRecord(name=run.name, identity={}, checkpoints_at=location).save(run.folder)
    rank = rank_of(run)
    next(rank.train())
    rank.saver.writer.wait()
    rank.coordinator.close()
    stored = {path: MEMORY.cat_file(path) for path in MEMORY.find("/resume")}
    return run, shutil.copytree(run.folder, home / "copy"), stored


@pytest.fixture
def run(trained):
    """Return the run as it was after its first validation."""
    run, folder, stored = trained
    shutil.rmtree(run.folder)
    shutil.copytree(folder, run.folder)
    if MEMORY.exists("/resume"):
        MEMORY.rm("/resume", recursive=True)
    MEMORY.pipe(stored)
    return run


@pytest.fixture
def counted(monkeypatch):
    """Return the names of checkpoints that are fetched, and of files that are hashed, from now on."""
    fetched, hashed = [], []
    fetch, digest = CheckpointStore.fetch, checkpoint_description.file_digest

    def counting_fetch(store, name, into):
        fetched.append(name)
        return fetch(store, name, into)

    def counting_digest(path, **options):
        hashed.append(path.name)
        return digest(path, **options)

    monkeypatch.setattr(CheckpointStore, "fetch", counting_fetch)
    monkeypatch.setattr(checkpoint_description, "file_digest", counting_digest)
    return fetched, hashed


def test_a_checkpoint_is_fetched_and_hashed_once(run, counted):
    rank = rank_of(run)
    rank.coordinator.close()
    assert (counted[0], sorted(counted[1])) == (["step-00000002-attempt-1"], FILES)


def test_training_goes_on_from_it_to_the_end(run):
    rank = rank_of(run)
    steps = [validation.step for validation in rank.train()]
    rank.coordinator.close()
    assert (steps, load_record(run.folder).is_finished) == ([4], True)


def stale(run, stop_after=1):
    """Return a run whose score gets worse, because its steps are far too large, and which validates every step."""
    return replace(
        run,
        optimizer=replace(run.optimizer, learning_rate=1.0),
        training=replace(run.training, checkpoint_every_steps=1),
        validation=ValidationConfig(stop_after=stop_after),
    )


@pytest.mark.parametrize("trained", STORES[:1], indirect=True)
def test_training_stops_when_the_score_no_longer_improves_and_says_why(run):
    rank = rank_of(stale(run))
    steps = [validation.step for validation in rank.train()]
    rank.coordinator.close()
    record = load_record(run.folder)
    assert (steps, record.latest_step, record.is_finished) == ([3], 3, True)
    assert re.fullmatch("validation loss not better than .* of step 2 in 1 validation", record.stopped_early)


@pytest.mark.parametrize("trained", STORES[:1], indirect=True)
def test_a_run_killed_before_it_could_say_so_takes_no_further_step(run):
    rank = rank_of(stale(run))
    next(rank.train())
    rank.saver.writer.wait()  # the checkpoint is committed; the process ends here
    rank.coordinator.close()
    again = rank_of(stale(run))
    steps = [validation.step for validation in again.train()]
    again.coordinator.close()
    record = load_record(run.folder)
    assert (steps, record.latest_step, record.is_finished) == ([], 3, True)
    assert record.stopped_early


@pytest.mark.parametrize("name", ["optimizer.pt", "checkpoint.json"])
def test_a_damaged_checkpoint_is_passed_over(run, name):
    rank = rank_of(run)
    next(rank.train())
    rank.saver.writer.wait()
    rank.coordinator.close()
    store, latest = rank.saver.store, load_record(run.folder).latest
    if run.storage.checkpoints is None:
        (run.folder / "checkpoints" / latest.name / name).write_bytes(b"torn")
    else:
        store.put_file(f"{latest.name}/{name}", b"torn")
    again = rank_of(run)
    again.coordinator.close()
    assert (latest.step, again.state.step, len(load_record(run.folder).rejected)) == (4, 2, 1)


def test_a_checkpoint_written_in_haste_is_validated_at_the_start(run):
    record = load_record(run.folder)
    hasty = replace(record.latest, metrics={})
    replace(record, checkpoints=(hasty,)).save(run.folder)
    rank = rank_of(run)
    validation = next(rank.train())
    rank.coordinator.close()
    assert isinstance(validation, Validation)
    assert (validation.step, load_record(run.folder).latest.metrics) == (2, record.latest.metrics)
    assert scores_of(validation.metrics) == record.latest.metrics
    assert validation.metrics.keys() > scores_of(validation.metrics).keys()


def test_averaged_weights_and_the_last_ones_have_scores_of_their_own(run):
    scores = load_record(run.folder).latest.metrics
    assert scores.keys() == {VALIDATION_LOSS, LAST_VALIDATION_LOSS}
    assert scores[VALIDATION_LOSS] != scores[LAST_VALIDATION_LOSS]


@pytest.mark.parametrize("trained", STORES[1:], indirect=True)
def test_a_rank_whose_checkpoints_were_taken_over_writes_none(run):
    store = store_of(run.folder, run.storage.checkpoints)
    first, second = Claim(store, "one", "process 1 on east"), Claim(store, "two", "process 2 on west")
    first.take()
    rank = rank_of(run, first)
    before = load_record(run.folder)
    second.take(by_force=True)
    with pytest.raises(ClaimLostError, match="belong to process 2 on west"):
        list(rank.train())
    rank.coordinator.close()
    assert (store.names(), load_record(run.folder)) == (["step-00000002-attempt-1"], before)


@pytest.mark.parametrize("trained", STORES[1:], indirect=True)
def test_a_rank_whose_checkpoints_were_taken_over_begins_no_attempt(run):
    claim = Claim(store_of(run.folder, run.storage.checkpoints), "one", "process 1 on east")
    config = WorkerConfig(run=run, coordinator=None, config_text="", lineage={}, claim=claim)
    coordinator = LocalCoordinator(run.folder, keep_best=3, keep_last=3)
    with pytest.raises(ClaimLostError, match="were taken over by another process"):
        start_rank(config, coordinator, RankContext())
    coordinator.close()
    assert load_record(run.folder).attempt == 1


def test_the_restored_weights_are_those_of_the_checkpoint(run):
    ranks = [rank_of(run)]
    ranks[0].coordinator.close()
    ranks.append(rank_of(run))
    ranks[1].coordinator.close()
    first, second = (rank.state.model.state_dict() for rank in ranks)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
