import json
import shutil
import time

import pytest

from cluster.runs.record import VALIDATION_LOSS, RunRecord, hold_run, load_record
from cluster.runs.writer import RecordKeeper


@pytest.fixture
def folder(tmp_path):
    RunRecord(name="r", identity={}).save(tmp_path)
    return tmp_path


@pytest.fixture
def keeper(folder):
    """Return the keeper of a run that has begun its first attempt."""
    keeper = RecordKeeper(folder, hold_run(folder), keep_best=1, keep_last=1)
    keeper.begin_attempt()
    yield keeper
    keeper.close()


@pytest.fixture
def patient(folder):
    """Return a keeper of two checkpoints."""
    keeper = RecordKeeper(folder, hold_run(folder), keep_best=1, keep_last=2)
    keeper.begin_attempt()
    yield keeper
    keeper.close()


def commit(keeper, step, loss=None, *, awaits_score=False):
    keeper.commit(step, {} if loss is None else {VALIDATION_LOSS: loss}, awaits_score=awaits_score)


def write_checkpoint(folder, step, attempt=1):
    (folder / "checkpoints" / f"step-{step:08d}-attempt-{attempt}").mkdir(parents=True)


def eventually(condition, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def test_a_record_on_disk_is_whole_json(keeper, folder):
    assert json.loads((folder / "run.json").read_text())["attempt"] == 1


def test_a_run_is_left_to_others(keeper, folder):
    keeper.close()
    hold_run(folder).close()


def test_a_run_without_a_record_is_refused_and_left_to_others(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run\.json; whoever starts the run writes it first"):
        RecordKeeper(tmp_path, hold_run(tmp_path), keep_best=1, keep_last=1)
    hold_run(tmp_path).close()


def test_folders_of_checkpoints_that_no_longer_count_are_removed(keeper, folder):
    for step, loss in ((1, 0.5), (2, 0.9), (3, 0.8)):
        write_checkpoint(folder, step)
        commit(keeper, step, loss)
    kept = ["step-00000001", "step-00000003"]
    eventually(lambda: sorted(path.name[:13] for path in (folder / "checkpoints").iterdir()) == kept)


def test_what_a_crash_left_behind_is_removed_at_the_next_attempt(keeper, folder):
    write_checkpoint(folder, 7)
    keeper.begin_attempt()
    eventually(lambda: list((folder / "checkpoints").iterdir()) == [])


def test_a_checkpoint_that_is_whole_is_not_rejected(patient, folder, tiny_run):
    commit(patient, 5, 1.0)
    commit(patient, 9, 1.0)
    latest = patient.begin_attempt().latest
    shutil.copytree(tiny_run / "checkpoints" / latest.name, folder / "checkpoints" / latest.name)
    with pytest.raises(FileNotFoundError, match="is whole, but a worker's node does not see it so; mount the home"):
        patient.reject(latest)


def test_the_last_checkpoint_is_not_rejected(keeper):
    commit(keeper, 5, 1.0)
    with pytest.raises(FileNotFoundError, match="is damaged, and there is no other to resume from; restore its folder"):
        keeper.reject(keeper.record.latest)


def test_what_was_rejected_stays_on_disk(patient, folder):
    for step in (5, 9):
        write_checkpoint(folder, step)
        commit(patient, step, 1.0)
    rejected = patient.record.latest
    patient.reject(rejected)
    write_checkpoint(folder, 1, attempt=0)
    patient.begin_attempt()
    eventually(lambda: len(list((folder / "checkpoints").iterdir())) == 2)
    assert (folder / "checkpoints" / rejected.name).is_dir()


def test_only_the_newest_checkpoint_is_scored(keeper):
    for step in (4, 8):
        commit(keeper, step, awaits_score=True)
    assert (keeper.newest_unscored(4), keeper.newest_unscored(8).step) == (None, 8)


def test_a_checkpoint_stays_while_it_is_scored(keeper, folder):
    commit(keeper, 4, awaits_score=True)
    keeper.newest_unscored(4)
    commit(keeper, 8)
    assert [checkpoint.step for checkpoint in load_record(folder).checkpoints] == [4, 8]


def test_a_score_task_that_was_killed_is_tried_again(keeper):
    commit(keeper, 4, awaits_score=True)
    assert [keeper.newest_unscored(4).step for _ in range(2)] == [4, 4]


def test_a_checkpoint_that_cannot_be_scored_is_not_kept_for_it(keeper, folder):
    commit(keeper, 4, awaits_score=True)
    keeper.newest_unscored(4)
    keeper.give_up_score(4)
    commit(keeper, 8)
    assert [checkpoint.step for checkpoint in load_record(folder).checkpoints] == [8]
