import pytest
from coordinated import eventually, row, settings, start_run

from cluster.coordinator import Coordinator
from cluster.journal import Journal
from cluster.runs import VALIDATION_LOSS, load_record


@pytest.fixture
def folder(tmp_path, client, home):
    return start_run(tmp_path, client, home)


@pytest.fixture
def coordinator(folder, home):
    made = Coordinator(folder, settings(home))
    yield made
    made.finish("FAILED")


def metrics(loss):
    return {VALIDATION_LOSS: loss}


def write_checkpoint(folder, step, attempt):
    (folder / "checkpoints" / f"step-{step:08d}-attempt-{attempt}").mkdir(parents=True)


def test_an_attempt_resumes_from_the_latest_checkpoint_that_counts(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 5, metrics(1.0))
    assert coordinator.begin_attempt().checkpoint.step == 5


def test_a_replaced_attempt_commits_nothing(coordinator, folder):
    old = coordinator.begin_attempt().number
    coordinator.begin_attempt()
    with pytest.raises(PermissionError, match="attempt 1 was replaced by 2; its checkpoint does not count"):
        coordinator.commit(old, 5, metrics(1.0))
    assert load_record(folder).checkpoints == ()


def test_the_journal_is_on_disk_before_a_checkpoint_counts(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    coordinator.beat(attempt, 0, 1, [row(1)])
    coordinator.commit(attempt, 1, metrics(1.0))
    assert Journal(folder / "journal").last_step == 1


def test_folders_of_checkpoints_that_no_longer_count_are_removed(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    for step, loss in ((1, 0.5), (2, 0.9), (3, 0.8)):
        write_checkpoint(folder, step, attempt)
        coordinator.commit(attempt, step, metrics(loss))
    kept = ["step-00000001", "step-00000003"]
    eventually(lambda: sorted(path.name[:13] for path in (folder / "checkpoints").iterdir()) == kept)


def test_what_a_crash_left_behind_is_removed_at_the_next_attempt(coordinator, folder):
    write_checkpoint(folder, 7, 1)
    coordinator.begin_attempt()
    coordinator.begin_attempt()
    eventually(lambda: list((folder / "checkpoints").iterdir()) == [])


def test_a_resize_wants_a_checkpoint_and_has_room_after_it(coordinator):
    attempt = coordinator.begin_attempt().number
    before = coordinator.make_room(3)
    asked, had_room = coordinator.beat(attempt, 0, 1).order, coordinator.has_room(before)
    coordinator.commit(attempt, 4, {})
    assert (asked, had_room, coordinator.has_room(before)) == ("checkpoint", False, True)


def test_there_is_nothing_to_save_before_the_first_group(coordinator):
    assert coordinator.make_room(3) is None


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(folder, home):
    coordinator = Coordinator(folder, settings(home, keep_last=2))
    first = coordinator.begin_attempt().number
    for step in (4, 8):
        coordinator.commit(first, step, metrics(1.0))
    attempt = coordinator.begin_attempt()
    again = coordinator.reject(attempt.number, attempt.checkpoint, "model.safetensors is altered")
    coordinator.finish("FAILED")
    assert (attempt.checkpoint.step, again.checkpoint.step, load_record(folder).latest.step) == (8, 4, 4)


def test_a_score_is_attached_to_its_step_and_tracked_once(folder, home, client):
    coordinator = Coordinator(folder, settings(home, keep_last=3))
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 4, {}, [row(4)], awaits_score=True)
    coordinator.commit(attempt, 8, {}, [row(8)])
    for _ in range(2):
        coordinator.add_score(4, metrics(0.5))
    coordinator.finish("FINISHED")
    history = client.get_metric_history(load_record(folder).mlflow_run_id, VALIDATION_LOSS)
    assert (load_record(folder).best.step, [metric.step for metric in history]) == (4, [4])


def test_only_the_newest_checkpoint_is_scored(coordinator):
    attempt = coordinator.begin_attempt().number
    for step in (4, 8):
        coordinator.commit(attempt, step, {}, awaits_score=True)
    assert (coordinator.newest_unscored(4), coordinator.newest_unscored(8).step) == (None, 8)


def test_a_checkpoint_stays_while_it_is_scored(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 4, {}, awaits_score=True)
    coordinator.newest_unscored(4)
    coordinator.commit(attempt, 8, {})
    assert [checkpoint.step for checkpoint in load_record(folder).checkpoints] == [4, 8]


def test_a_checkpoint_that_is_whole_is_not_rejected(folder, home, tiny_run):
    import shutil

    coordinator = Coordinator(folder, settings(home, keep_last=2))
    first = coordinator.begin_attempt().number
    coordinator.commit(first, 5, metrics(1.0))
    coordinator.commit(first, 9, metrics(1.0))
    attempt = coordinator.begin_attempt()
    shutil.copytree(
        tiny_run / "checkpoints" / attempt.checkpoint.name, folder / "checkpoints" / attempt.checkpoint.name
    )
    with pytest.raises(FileNotFoundError, match="is whole, but a worker's node does not see it so; mount the home"):
        coordinator.reject(attempt.number, attempt.checkpoint, "it is no checkpoint")
    coordinator.finish("FAILED")


def test_the_last_checkpoint_is_not_rejected(coordinator):
    coordinator.commit(coordinator.begin_attempt().number, 5, metrics(1.0))
    attempt = coordinator.begin_attempt()
    with pytest.raises(FileNotFoundError, match="is damaged, and there is no other to resume from; restore its folder"):
        coordinator.reject(attempt.number, attempt.checkpoint, "it is no checkpoint")


def test_what_was_rejected_stays_on_disk(folder, home):
    coordinator = Coordinator(folder, settings(home, keep_last=2))
    first = coordinator.begin_attempt().number
    for step in (5, 9):
        write_checkpoint(folder, step, first)
        coordinator.commit(first, step, metrics(1.0))
    attempt = coordinator.begin_attempt()
    coordinator.reject(attempt.number, attempt.checkpoint, "altered")
    write_checkpoint(folder, 1, 0)
    coordinator.begin_attempt()
    eventually(lambda: len(list((folder / "checkpoints").iterdir())) == 2)
    coordinator.finish("FAILED")
    assert (folder / "checkpoints" / attempt.checkpoint.name).is_dir()


def test_a_score_task_that_was_killed_is_tried_again(coordinator):
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 4, {}, awaits_score=True)
    assert [coordinator.newest_unscored(4).step for _ in range(2)] == [4, 4]


def test_a_checkpoint_that_cannot_be_scored_is_not_kept_for_it(coordinator, folder):
    attempt = coordinator.begin_attempt().number
    coordinator.commit(attempt, 4, {}, awaits_score=True)
    coordinator.newest_unscored(4)
    coordinator.give_up_score(4, "out of memory")
    coordinator.commit(attempt, 8, {})
    assert [checkpoint.step for checkpoint in load_record(folder).checkpoints] == [8]
