"""Self-critical training of a rank that trains alone: where it starts, and the bits that it ends in after any kill."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from captioning.config import ModelConfig
from cluster.config import ClusterConfig, ValidationConfig
from cluster.coordination.local import LocalCoordinator
from cluster.coordination.messages import WorkerConfig
from cluster.data.document_frequencies import FOLDER
from cluster.runs.journal import list_segments, read_segment
from cluster.runs.record import RunRecord, load_record
from cluster.runs.sample_ledger import read_sample_ledger
from cluster.worker.rank import RankContext
from cluster.worker.start import start_rank
from tests.support.drawn_shards import draw_shards
from tests.support.short_runs import short_run

NUM_STEPS, SWITCH = 5, 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of three steps by captions of people and two self-critical ones, with a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("home")
    plain = short_run(
        draw_shards(folder, num_train=12, num_val=3, size_px=32),
        folder,
        name="critical",
        cluster=ClusterConfig(num_workers=1),
        validation=ValidationConfig(best_by="validation_cider_d", beam_size=1),
    )
    training = replace(
        plain.training,
        batch_size=6,
        num_epochs=SWITCH / 2,
        self_critical_epochs=(NUM_STEPS - SWITCH) / 2,
        self_critical_learning_rate=0.01,
        checkpoint_every_steps=1,
        keep_last=NUM_STEPS,
        max_caption_words=8,
    )
    model = ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=32, embedding_size=16, hidden_size=16)
    return replace(plain, training=training, model=model, storage=replace(plain.storage, ledger=True))


def train_until(run, step):
    """Train as a rank does until a step's checkpoint is committed; then leave it as a kill does."""
    run.folder.mkdir(parents=True, exist_ok=True)
    if not load_record(run.folder):
        RunRecord(name=run.name, identity={}, best_by="validation_cider_d").save(run.folder)
    coordinator = LocalCoordinator(run.folder, keep_best=2, keep_last=NUM_STEPS)
    rank = start_rank(WorkerConfig(run=run, coordinator=None, config_text="", lineage={}), coordinator, RankContext())
    for validation in rank.train():
        rank.saver.writer.wait()
        if validation.step == step:
            break
    coordinator.close()
    return rank


def weights_of(run, step):
    (folder,) = (run.folder / "checkpoints").glob(f"step-{step:08d}-*")
    return load_file(folder / "model.safetensors")


def is_equal(weights, others):
    return all(torch.equal(tensor, others[name]) for name, tensor in weights.items())


@pytest.fixture(scope="module")
def straight(run):
    """Return the run as it is after training without a kill."""
    train_until(run, None)
    return run


@pytest.fixture(scope="module")
def journal(straight):
    rows = {}
    for segment in list_segments(straight.folder / "journal"):
        for row in read_segment(segment):
            rows.setdefault(row.step, {}).update(row.metrics)
    return rows


def test_it_takes_all_steps_and_rewards_those_after_the_switch(straight, journal):
    assert load_record(straight.folder).is_finished
    assert sorted(read_sample_ledger(straight.folder / "ledger").batches) == [1, 2, 3, 4, 5]
    assert [step for step in sorted(journal) if "train_reward" in journal[step]] == [4, 5]
    assert sorted(journal) == [1, 2, 3, 4, 5]


def test_it_starts_from_the_best_checkpoint_with_its_own_learning_rate(straight, journal):
    scores = {step: journal[step]["validation_cider_d"] for step in range(1, SWITCH + 1)}
    best = min(scores, key=lambda step: (-scores[step], step))
    assert load_record(straight.folder).self_critical_from == best
    assert [journal[step]["learning_rate"] for step in (4, 5)] == [0.01, 0.01]


@pytest.fixture(scope="module")
def killed(straight, tmp_path_factory):
    """Return the run as it is after a kill at the second step, and one at the last step before the switch."""
    run = replace(straight, storage=replace(straight.storage, home=tmp_path_factory.mktemp("killed")))
    train_until(run, 2)
    train_until(run, SWITCH)
    return run


@pytest.fixture
def again(killed, tmp_path):
    """Return a copy of the killed run."""
    shutil.copytree(killed.folder, tmp_path / "training" / killed.name)
    return replace(killed, storage=replace(killed.storage, home=tmp_path))


def test_killed_before_and_after_the_switch_it_ends_in_the_same_bits(straight, again):
    train_until(again, 4)
    train_until(again, None)
    assert load_record(again.folder).self_critical_from == load_record(straight.folder).self_critical_from
    assert is_equal(weights_of(again, NUM_STEPS), weights_of(straight, NUM_STEPS))


def test_added_to_a_run_that_has_ended_it_ends_in_the_same_bits(straight, run, tmp_path):
    longer = replace(run, storage=replace(run.storage, home=tmp_path))
    train_until(replace(longer, training=replace(run.training, self_critical_epochs=0.0)), None)
    assert load_record(longer.folder).latest_step == SWITCH
    train_until(longer, None)
    assert load_record(longer.folder).self_critical_from == load_record(straight.folder).self_critical_from
    assert is_equal(weights_of(longer, NUM_STEPS), weights_of(straight, NUM_STEPS))


def with_first_as_best(run):
    record = load_record(run.folder)
    first, *others = record.checkpoints
    best = replace(first, metrics={"validation_loss_nats": 1.0, "validation_cider_d": 9.0})
    replace(record, checkpoints=(best, *others)).save(run.folder)
    return first


def test_it_starts_from_the_best_checkpoint_and_not_from_the_last(again):
    with_first_as_best(again)
    train_until(replace(again, training=replace(again.training, self_critical_learning_rate=1e-12)), None)
    started, ended = weights_of(again, 1), weights_of(again, NUM_STEPS)
    assert load_record(again.folder).self_critical_from == 1
    assert max(float((started[name] - ended[name]).abs().max()) for name in started) < 1e-9


def test_a_damaged_best_checkpoint_is_passed_over(again):
    first = with_first_as_best(again)
    (again.folder / "checkpoints" / first.name / "model.safetensors").write_bytes(b"torn")
    train_until(again, None)
    record = load_record(again.folder)
    assert (record.rejected, record.self_critical_from in (2, 3)) == ((first.name,), True)


def test_the_document_frequencies_are_kept(straight):
    (kept,) = (straight.storage.home / FOLDER).iterdir()
    assert kept.suffix == ".npz"
