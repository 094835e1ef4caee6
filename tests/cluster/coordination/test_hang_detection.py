import os
import signal
import subprocess
import sys
from typing import NamedTuple

import psutil
import pytest
import ray

from cluster.config import ClusterConfig
from cluster.coordination.client import CoordinatorClient, this_worker
from cluster.coordination.hang_detection import Watchdog, _kill, kill_ranks
from cluster.resources.session import cluster_session
from tests.support.clock import Clock

END_WITH = """
import sys, threading
from cluster.coordination.hang_detection import end_with
end_with(int(sys.argv[1]), before=lambda: print("flushed", flush=True))
print("watching", flush=True)
threading.Event().wait()
"""


class At(NamedTuple):
    rank: int


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def late():
    """Return the times, in seconds, after which groups were reported as not started."""
    return []


@pytest.fixture
def watchdog(clock, late):
    # The watchdog's thread polls in real time, on which these tests do not rely: they call its methods themselves.
    made = Watchdog(
        lambda worker, seconds: None, late.append, hang_seconds=10.0, start_seconds=30.0,
        kill=lambda workers: None, clock=clock,
    )  # fmt: skip
    made.begin([At(0), At(1)])
    return made


def test_ranks_that_make_progress_do_not_hang(watchdog, clock):
    for second in range(40):
        clock.now = float(second)
        for rank in range(2):
            watchdog.heartbeat(rank, second)
    assert watchdog.hung() is None


def test_a_rank_without_a_sign_of_life_hangs(watchdog, clock):
    clock.now = 9.0
    watchdog.heartbeat(0, 1)
    clock.now = 10.5
    assert watchdog.hung() == (At(1), 10.5)


def test_a_rank_that_lives_but_gets_no_further_hangs(watchdog, clock):
    clock.now = 5.0
    watchdog.heartbeat(0, 7)
    for second in (8.0, 16.0):
        clock.now = second
        watchdog.heartbeat(0, 7)
        watchdog.heartbeat(1, int(second))
    assert watchdog.hung() == (At(0), 11.0)


def test_after_an_attempt_nobody_hangs(watchdog, clock):
    clock.now = 99.0
    watchdog.end()
    assert watchdog.hung() is None


@pytest.mark.parametrize(("seconds", "given_up"), [(29.0, []), (31.0, [31.0])])
def test_a_group_has_its_time_to_start(watchdog, clock, late, seconds, given_up):
    watchdog.expect()
    clock.now = seconds
    for _ in range(2):
        watchdog.end_what_does_not_start()
    assert late == given_up


def test_a_group_that_has_started_is_not_given_up(watchdog, clock, late):
    watchdog.expect()
    watchdog.begin([At(0)])
    clock.now = 99.0
    watchdog.end_what_does_not_start()
    assert late == []


def test_the_longest_silence_is_known(watchdog, clock):
    clock.now = 4.0
    watchdog.heartbeat(0, 1)
    clock.now = 5.0
    assert watchdog.seconds_silent() == 5.0


@pytest.mark.parametrize(("is_same", "lives"), [(True, False), (False, True)])
def test_only_the_process_that_was_meant_is_killed(is_same, lives):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        born = psutil.Process(process.pid).create_time()
        _kill(process.pid, born if is_same else born - 1)
        found = process.poll() is None if lives else process.wait(timeout=20) is None
        process.kill()
    assert found == lives


def test_a_process_whose_birth_is_unknown_is_killed_if_it_is_rays():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        _kill(process.pid, None)
        lives = process.poll() is None
        process.kill()
    assert lives


def test_a_new_attempt_has_its_time(watchdog, clock):
    clock.now = 99.0
    watchdog.begin([At(0)])
    assert watchdog.hung() is None


def test_ranks_that_live_on_are_ended_again(clock):
    killed = []

    def kill(workers):
        killed.append(workers)
        raise OSError("the node does not answer")

    watchdog = Watchdog(
        lambda worker, seconds: None,
        lambda seconds: None,
        hang_seconds=10.0,
        start_seconds=30.0,
        kill=kill,
        clock=clock,
    )
    watchdog.begin([At(0)])
    for second in (11.0, 20.0, 22.0):
        clock.now = second
        watchdog.end_what_hangs()
    assert killed == [(At(0),), (At(0),)]


@pytest.mark.cluster
def test_a_process_that_is_stopped_is_killed_on_its_node():
    with cluster_session(ClusterConfig()):
        client = ray.remote(num_cpus=0)(CoordinatorClient).remote(None, 0, batch_size=1)
        worker = ray.get(client.__ray_call__.remote(lambda _: this_worker(0)))
        process = psutil.Process(worker.pid)
        process.send_signal(signal.SIGSTOP)
        kill_ranks([worker])
        gone, _ = psutil.wait_procs([process], timeout=30)
    assert gone == [process]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_ends_with_the_one_that_it_watches(how):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as watched:
        command = [sys.executable, "-c", END_WITH, str(watched.pid)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout.readline() == "watching\n"
            watched.send_signal(how)
            output, _ = watching.communicate(timeout=30)
    assert (output, watching.returncode) == ("flushed\n", 1)


def test_a_process_that_cannot_be_seen_is_not_waited_for():
    program = (
        "from cluster.coordination.hang_detection import end_with\n"
        "end_with(2**22 + 1, before=lambda: None); print('lives')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "lives\n"
