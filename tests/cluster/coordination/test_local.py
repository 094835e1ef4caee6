import json
import multiprocessing
import threading
from dataclasses import replace

import pytest

from cluster.coordination.local import LocalCoordinator
from cluster.coordination.messages import Attempt
from cluster.runs.journal import unshipped
from cluster.runs.record import CommittedCheckpoint, RunRecord, load_record, lock_run
from cluster.runs.score_history import VALIDATION_LOSS


@pytest.fixture
def folder(tmp_path):
    RunRecord(name="r", identity={}).save(tmp_path)
    return tmp_path


@pytest.fixture
def coordinator(folder):
    coordinator = LocalCoordinator(folder, keep_best=1, keep_last=1)
    yield coordinator
    coordinator.close()


def write_checkpoint(folder, name):
    (folder / "checkpoints" / name).mkdir(parents=True)


def commit(coordinator, folder, step, loss):
    write_checkpoint(folder, f"step-{step:08d}-attempt-{load_record(folder).attempt}")
    coordinator.add_row(step, {"train_loss_nats": 5.0, VALIDATION_LOSS: loss})
    coordinator.commit(step, {VALIDATION_LOSS: loss})


def test_a_run_that_is_new_begins_at_the_start(coordinator, folder):
    attempt = coordinator.begin_attempt([coordinator.worker_info()])
    assert (attempt[:2], load_record(folder).attempt) == ((1, None), 1)


def test_it_goes_on_from_the_latest_checkpoint_that_counts(coordinator, folder):
    coordinator.begin_attempt([])
    commit(coordinator, folder, 8, 3.0)
    coordinator.close()
    again = LocalCoordinator(folder, keep_best=1, keep_last=1)
    attempt = again.begin_attempt([])
    again.close()
    assert (attempt.number, attempt.checkpoint.step) == (2, 8)


def test_rows_are_journalled_before_a_checkpoint_counts(coordinator, folder):
    coordinator.begin_attempt([])
    commit(coordinator, folder, 8, 3.0)
    assert [row.step for _, rows in unshipped(folder / "journal") for row in rows] == [8]


def test_a_step_that_is_computed_again_is_journalled_once(coordinator, folder):
    coordinator.begin_attempt([])
    coordinator.add_row(3, {"train_loss_nats": 5.0})
    coordinator.add_row(3, {"train_loss_nats": 5.0})
    coordinator.close()
    assert [row.step for _, rows in unshipped(folder / "journal") for row in rows] == [3]


def test_only_the_best_and_the_latest_checkpoint_are_kept(coordinator, folder):
    coordinator.begin_attempt([])
    for step, loss in ((8, 2.0), (16, 3.0), (24, 4.0)):
        commit(coordinator, folder, step, loss)
    assert [one.step for one in load_record(folder).checkpoints] == [8, 24]


def test_a_checkpoint_of_an_attempt_that_was_replaced_does_not_count(coordinator, folder):
    coordinator.begin_attempt([])
    replace(load_record(folder), attempt=2).save(folder)
    with pytest.raises(PermissionError, match="attempt 1 was replaced; its checkpoint at step 8 is not committed"):
        coordinator.commit(8, {})


def test_a_score_that_comes_late_belongs_to_its_checkpoint(coordinator, folder):
    coordinator.begin_attempt([])
    commit(coordinator, folder, 8, 3.0)
    coordinator.add_score(8, {"validation_cider_d": 0.5})
    assert load_record(folder).latest.metrics == {VALIDATION_LOSS: 3.0, "validation_cider_d": 0.5}


def test_a_damaged_checkpoint_is_passed_over(coordinator, folder):
    coordinator.begin_attempt([])
    commit(coordinator, folder, 8, 2.0)
    commit(coordinator, folder, 16, 3.0)
    attempt = coordinator.reject(1, load_record(folder).latest, "torn")
    assert (attempt.checkpoint.step, len(load_record(folder).rejected)) == (8, 1)


def test_the_end_of_a_run_is_in_its_record(coordinator, folder):
    coordinator.begin_attempt([])
    coordinator.end_training()
    assert json.loads((folder / "run.json").read_text())["is_finished"]


def test_it_requests_nothing(coordinator):
    assert coordinator.requests() == (False, False, False)


def test_it_knows_the_step_that_the_rank_is_at(coordinator):
    coordinator.join_attempt(Attempt(1, CommittedCheckpoint(step=8, attempt=1)))
    resumed_at = coordinator.step
    coordinator.heartbeat(9)
    assert (resumed_at, coordinator.step) == (8, 9)


def test_a_run_that_another_process_goes_on_holding_is_refused(folder):
    waited = []
    with lock_run(folder), pytest.raises(BlockingIOError, match="has a live driver already"):
        LocalCoordinator(folder, keep_best=1, keep_last=1, patience_seconds=0.0, sleep=waited.append)
    assert len(waited) <= 1


def test_a_process_that_ends_soon_is_waited_for(folder):
    lock = lock_run(folder)
    coordinator = LocalCoordinator(folder, keep_best=1, keep_last=1, sleep=lambda seconds: lock.close())
    coordinator.close()
    assert load_record(folder).attempt == 0


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run.json; run the same command again to write it"):
        LocalCoordinator(tmp_path, keep_best=1, keep_last=1)


def hang(folder):
    coordinator = LocalCoordinator(folder, keep_best=1, keep_last=1, hang_seconds=0.2)
    coordinator.join_attempt(coordinator.begin_attempt([]))
    coordinator.heartbeat(1)
    threading.Event().wait()


def test_an_attempt_that_hangs_ends_its_process_and_the_next_says_where_it_hung(folder, log_lines, caplog):
    caplog.set_level("INFO")
    process = multiprocessing.get_context("fork").Process(target=hang, args=(folder,))
    process.start()
    process.join()
    again = LocalCoordinator(folder, keep_best=1, keep_last=1)
    again.begin_attempt([])
    again.close()
    stacks = folder / "hang-attempt-1.txt"
    said = f"attempt 1 made no progress and was ended; {stacks} says where it hung"
    assert (process.exitcode, said in log_lines(), "in hang" in stacks.read_text()) == (1, True, True)


def test_an_attempt_that_ends_leaves_no_file_of_where_it_hung(folder):
    coordinator = LocalCoordinator(folder, keep_best=1, keep_last=1, hang_seconds=600.0)
    coordinator.join_attempt(coordinator.begin_attempt([]))
    coordinator.pause()
    coordinator.heartbeat(1)
    coordinator.close()
    assert [path.name for path in folder.glob("hang*")] == []
