"""The timer ends a process, so these tests let it end a copy of their own."""

import faulthandler
import multiprocessing
import threading

from cluster.coordination.hang_timer import HangTimer

SOON, NEVER = 0.2, 3600.0


def stands_still():
    threading.Event().wait()


def exit_code_of(act, *arguments):
    process = multiprocessing.get_context("fork").Process(target=act, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def hang(file):
    HangTimer(SOON, file)
    stands_still()


def test_a_process_that_hangs_is_ended_and_says_where_it_hung(tmp_path):
    file = tmp_path / "hang.txt"
    assert (exit_code_of(hang, file), "stands_still" in file.read_text()) == (1, True)


def hang_after_a_pause(file):
    timer = HangTimer(SOON, file)
    timer.pause()
    threading.Event().wait(2 * SOON)
    timer.progress()
    stands_still()


def test_a_pause_is_no_hang_and_ends_with_the_next_progress(tmp_path):
    assert exit_code_of(hang_after_a_pause, tmp_path / "hang.txt") == 1


def test_a_timer_that_is_closed_leaves_no_file(tmp_path):
    HangTimer(NEVER, tmp_path / "hang.txt").close()
    assert list(tmp_path.iterdir()) == []


def test_progress_starts_the_time_anew_and_not_more_often_than_once_a_second(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: started.append(now[0]))
    now = [0.0]
    timer = HangTimer(600.0, tmp_path / "hang.txt", clock=lambda: now[0])
    for now[0] in (0.5, 1.0, 1.5, 2.25):
        timer.progress()
    timer.close()
    assert started == [0.0, 1.0, 2.25]
