import json
import shutil

import pytest

from cluster.runs.record import RunRecord, load_record, lock_run
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.runs.writer import RunWriter
from tests.support.clock import eventually


@pytest.fixture
def folder(tmp_path):
    RunRecord(name="r", identity={}).save(tmp_path)
    return tmp_path


@pytest.fixture
def writer(folder):
    """Return the writer of a run in its first attempt; it keeps one checkpoint."""
    writer = RunWriter(folder, lock_run(folder), keep_best=1, keep_last=1)
    writer.begin_attempt()
    yield writer
    writer.close()


@pytest.fixture
def patient(folder):
    """Return a writer that keeps the two latest checkpoints."""
    writer = RunWriter(folder, lock_run(folder), keep_best=1, keep_last=2)
    writer.begin_attempt()
    yield writer
    writer.close()


def commit(writer, step, loss=None, *, awaits_score=False):
    writer.commit(step, {} if loss is None else {VALIDATION_LOSS: loss}, awaits_score=awaits_score)


def write_checkpoint(folder, step, attempt=1):
    (folder / "checkpoints" / f"step-{step:08d}-attempt-{attempt}").mkdir(parents=True)


def test_a_record_on_disk_is_whole_json(writer, folder):
    assert json.loads((folder / "run.json").read_text())["attempt"] == 1


def test_a_run_is_left_to_others(writer, folder):
    writer.close()
    lock_run(folder).close()


def test_a_run_without_a_record_is_refused_and_left_to_others(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run\.json; run the same command again to write it"):
        RunWriter(tmp_path, lock_run(tmp_path), keep_best=1, keep_last=1)
    lock_run(tmp_path).close()


def test_folders_of_checkpoints_that_no_longer_count_are_removed(writer, folder):
    for step, loss in ((1, 0.5), (2, 0.9), (3, 0.8)):
        write_checkpoint(folder, step)
        commit(writer, step, loss)
    kept = ["step-00000001", "step-00000003"]
    eventually(lambda: sorted(path.name[:13] for path in (folder / "checkpoints").iterdir()) == kept)


def test_what_a_crash_left_behind_is_removed_at_the_next_attempt(writer, folder):
    write_checkpoint(folder, 7)
    writer.begin_attempt()
    eventually(lambda: list((folder / "checkpoints").iterdir()) == [])


def test_a_checkpoint_that_is_whole_is_not_rejected(patient, folder, tiny_run):
    commit(patient, 5, 1.0)
    commit(patient, 9, 1.0)
    latest = patient.begin_attempt().latest
    shutil.copytree(tiny_run / "checkpoints" / latest.name, folder / "checkpoints" / latest.name)
    with pytest.raises(FileNotFoundError, match="is intact, but a worker's node cannot read it; mount the home"):
        patient.reject(latest)


def test_the_last_checkpoint_is_not_rejected(writer):
    commit(writer, 5, 1.0)
    with pytest.raises(
        FileNotFoundError, match="is damaged, and there is no other checkpoint to resume from; restore its folder"
    ):
        writer.reject(writer.record.latest)


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


def test_only_the_newest_checkpoint_is_scored(writer):
    for step in (4, 8):
        commit(writer, step, awaits_score=True)
    assert (writer.newest_unscored(4), writer.newest_unscored(8).step) == (None, 8)


def test_a_checkpoint_stays_while_it_is_scored(writer, folder):
    commit(writer, 4, awaits_score=True)
    writer.newest_unscored(4)
    commit(writer, 8)
    assert [checkpoint.step for checkpoint in load_record(folder).checkpoints] == [4, 8]


def test_a_score_task_that_was_killed_is_tried_again(writer):
    commit(writer, 4, awaits_score=True)
    assert [writer.newest_unscored(4).step for _ in range(2)] == [4, 4]


def test_a_checkpoint_that_cannot_be_scored_is_not_kept_for_it(writer, folder):
    commit(writer, 4, awaits_score=True)
    writer.newest_unscored(4)
    writer.give_up_score(4)
    commit(writer, 8)
    assert [checkpoint.step for checkpoint in load_record(folder).checkpoints] == [8]
