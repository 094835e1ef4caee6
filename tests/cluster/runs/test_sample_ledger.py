from dataclasses import replace

import pytest

from cluster.config import ClusterConfig
from cluster.coordination.local import LocalCoordinator
from cluster.coordination.messages import WorkerConfig
from cluster.runs.identity import config_text
from cluster.runs.record import RunRecord
from cluster.runs.sample_ledger import SampleLedger, TrainedSamples, audit, audit_samples, read_sample_ledger
from cluster.worker.rank import RankContext
from cluster.worker.start import start_rank
from tests.support.case_table import each_case
from tests.support.short_runs import short_run


def write(folder, attempt, resumed_at, steps, *, ranks=2, keys="ab"):
    """Write the ledger of an attempt in which all ranks have the same number of samples."""
    for rank in range(ranks):
        ledger = SampleLedger(folder, attempt=attempt, rank=rank, resumed_at=resumed_at)
        for step in steps:
            ledger.add(step, [f"{step}{keys[rank]}"])
        ledger.close()


def test_an_undisturbed_run_counts_every_step(tmp_path):
    write(tmp_path, 1, 0, [1, 2])
    assert read_sample_ledger(tmp_path) == ({1: ["1a", "1b"], 2: ["2a", "2b"]}, 0, {})


def test_what_is_computed_again_counts_once_and_is_told_apart(tmp_path):
    write(tmp_path, 1, 0, [1, 2, 3])
    write(tmp_path, 2, 2, [3, 4])
    assert read_sample_ledger(tmp_path) == ({step: [f"{step}a", f"{step}b"] for step in (1, 2, 3, 4)}, 2, {1: 1})


def test_an_attempt_that_was_overtaken_twice_counts_up_to_the_earliest_resume(tmp_path):
    write(tmp_path, 1, 0, [1, 2, 3, 4])
    write(tmp_path, 2, 3, [])
    write(tmp_path, 3, 1, [2])  # the checkpoint of step 3 was damaged
    trained = read_sample_ledger(tmp_path)
    assert (sorted(trained.batches), trained.num_redone, trained.steps_redone) == ([1, 2], 6, {1: 3})


def test_a_ledger_that_is_opened_again_goes_on(tmp_path):
    write(tmp_path, 1, 0, [1, 2])
    write(tmp_path, 1, 2, [3])
    assert read_sample_ledger(tmp_path) == ({step: [f"{step}a", f"{step}b"] for step in (1, 2, 3)}, 0, {})


def test_a_line_that_a_kill_tore_is_no_step(tmp_path):
    write(tmp_path, 1, 0, [1, 2], ranks=1)
    path = next(tmp_path.iterdir())
    path.write_text(path.read_text()[:-4])
    assert sorted(read_sample_ledger(tmp_path).batches) == [1]


def test_a_file_that_a_kill_left_empty_belongs_to_no_step(tmp_path):
    write(tmp_path, 1, 0, [1], ranks=1)
    (tmp_path / "attempt-0002-rank-0000.jsonl").touch()
    write(tmp_path, 3, 1, [2], ranks=1)
    assert sorted(read_sample_ledger(tmp_path).batches) == [1, 2]


def test_samples_are_counted_by_epoch():
    trained = TrainedSamples({1: ["a", "b"], 2: ["c", "b"], 3: ["a", "c"]}, 0, {})
    assert audit(trained, num_steps=3, batch_size=2, num_samples=3) == (3, 2, 3, 0, 0, 0)


@each_case(
    ("batches", "num_lost", "num_repeated"),
    [
        ({1: ["a", "b"], 2: ["c", "a"], 3: ["b", "c"]}, 0, 0),
        ({1: ["a", "b"], 2: ["c"], 3: ["b", "c"]}, 1, 0),  # a rank's part is missing
        ({1: ["a", "b"], 3: ["b", "c"]}, 2, 0),  # so is a whole step
        ({1: ["a", "b"], 2: ["b", "a"], 3: ["b", "c"]}, 1, 1),  # one took the place of another
        ({1: ["a", "b", "a"], 2: ["c", "a"], 3: ["b", "c"]}, 0, 1),
        ({1: ["a", "b"], 2: ["c", "a"], 3: ["b", "c"], 4: ["c", "c"]}, 0, 0),  # no checkpoint counts step 4
    ],
)
def test_an_audit_finds_what_was_lost_or_repeated(batches, num_lost, num_repeated):
    found = audit(TrainedSamples(batches, 0, {}), num_steps=3, batch_size=2, num_samples=3)
    assert (found.num_lost, found.num_repeated) == (num_lost, num_repeated)


@pytest.fixture
def run(drawn_shards, tmp_path):
    """Return a run with a ledger that trained from its first step to its end, in a process of its own."""
    run = short_run(drawn_shards, tmp_path, name="r", cluster=ClusterConfig(num_workers=1))
    run = replace(run, storage=replace(run.storage, ledger=True))
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(config_text(run))
    RunRecord(name="r", identity={}).save(run.folder)
    coordinator = LocalCoordinator(run.folder, keep_best=1, keep_last=1)
    config = WorkerConfig(run=run, coordinator=None, config_text="", lineage={})
    for _ in start_rank(config, coordinator, RankContext()).train():
        pass
    coordinator.close()
    return run


def test_a_run_trains_on_each_sample_once_an_epoch(run):
    found = audit_samples(run.folder)
    assert (found.is_exact, str(found)) == (
        True,
        "steps: 12, complete epochs of 120 samples: 1; samples lost: 0, repeated: 0, computed again after restarts: 0",
    )


def test_a_folder_that_is_no_runs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run\.json; give the folder of a run"):
        audit_samples(tmp_path)


def test_a_run_without_a_ledger_is_refused(tmp_path):
    RunRecord(name="r", identity={}).save(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="run r has no ledger of its samples; train with --ledger to record one"
    ):
        audit_samples(tmp_path)
