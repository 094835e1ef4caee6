import threading

import pytest

from cluster.worker.checkpointing import BackgroundWriter
from tests.support.clock import Clock


def test_work_goes_on_in_the_background():
    may_end, writer = threading.Event(), BackgroundWriter()
    work = writer.submit(lambda: may_end.wait)
    was_done = work.done()
    may_end.set()
    writer.wait()
    assert (was_done, work.done()) == (False, True)


def test_preparing_is_done_at_once():
    prepared = []
    BackgroundWriter().submit(lambda: (prepared.append(1), lambda: None)[1])
    assert prepared == [1]


def test_pieces_of_work_do_not_overlap():
    order, writer = [], BackgroundWriter()
    for number in range(3):
        writer.submit(lambda number=number: (order.append(f"prepare {number}"), lambda: order.append(f"{number}"))[1])
    writer.wait()
    assert order == ["prepare 0", "0", "prepare 1", "1", "prepare 2", "2"]


def test_what_fails_is_raised_at_the_next_call_and_once():
    writer = BackgroundWriter()
    writer.submit(lambda: lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        writer.submit(lambda: lambda: None)
    writer.wait()


def test_what_fails_is_raised_when_waited_for():
    writer = BackgroundWriter()
    writer.submit(lambda: lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        writer.wait()


def test_the_time_that_training_waits_is_counted():
    clock = Clock()
    writer = BackgroundWriter(clock=clock)

    def prepare():
        clock.now += 2.0
        return lambda: None

    writer.submit(prepare)
    writer.wait()
    assert writer.stall_seconds == 2.0
