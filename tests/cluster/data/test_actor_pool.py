"""Losses of a pool's actors. A small scheduler stands in for Ray: a node that is cut off or full cannot be had here."""

from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from cluster.data import actor_pool
from cluster.data.actor_pool import ActorPool
from cluster.errors import PassingFault

FULL = OutOfMemoryError("Task was killed due to the node running low on memory.")


class Scheduler:
    """Ray's calls, each of which ends as a function of the actor and its shard says."""

    def __init__(self, outcome):
        self.outcome, self.actors, self.killed, self.most_at_once = outcome, 0, [], 0

    def start(self):
        self.actors += 1
        number = self.actors
        actor = SimpleNamespace(number=number)
        actor.prepare = SimpleNamespace(remote=lambda: (number, None))
        actor.write = SimpleNamespace(remote=lambda shard: (number, shard.name))
        actor.num_images_done = SimpleNamespace(remote=lambda: (number, "count"))
        return actor

    def wait(self, references, timeout, num_returns=1):
        self.most_at_once = max(self.most_at_once, sum(name is not None for _, name in references))
        return references[-1:], references[:-1]

    def get(self, reference):
        number, name = reference
        ended = None if name is None else self.outcome(number, name)
        if isinstance(ended, actor_pool.RayError):
            raise ended
        return ended

    def kill(self, actor):
        self.killed.append(actor.number)


def written(number, name):
    return SimpleNamespace(name=name, num_samples=1)


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Return a function that writes four shards with a pool, and returns their names and the scheduler."""

    def run(outcome, num_workers=3):
        scheduler = Scheduler(outcome)
        for name in ("wait", "get", "kill"):
            monkeypatch.setattr(f"cluster.data.actor_pool.ray.{name}", getattr(scheduler, name))
        shards = [SimpleNamespace(name=name) for name in "abcd"]
        pool = ActorPool(shards, tmp_path, scheduler.start)
        names = [record.name for records in pool.write_all(num_workers) for record in records]
        return sorted(names), scheduler

    return run


def test_a_lost_actor_is_replaced_and_its_shard_is_written(write):
    names, scheduler = write(lambda number, name: ActorDiedError() if number == 3 else written(number, name))
    assert (names, scheduler.actors, 3 in scheduler.killed) == (list("abcd"), 4, True)


def test_an_actor_that_ran_out_of_memory_is_not_replaced(write, log_lines):
    names, scheduler = write(lambda number, name: FULL if number in (2, 3) else written(number, name))
    assert (names, scheduler.actors) == (list("abcd"), 3)
    assert [line.partition(";")[2] for line in log_lines()] == [" going on with 2 at once", " going on with 1 at once"]


def test_an_error_of_python_for_lack_of_memory_counts_as_well(write):
    error = RayTaskError("write", "Traceback\nMemoryError", MemoryError())
    names, scheduler = write(lambda number, name: error if number == 3 else written(number, name))
    assert (names, scheduler.actors, 3 in scheduler.killed) == (list("abcd"), 3, True)


def test_memory_that_is_short_for_a_single_actor_is_named(write):
    with pytest.raises(
        PassingFault, match=r"^memory ran out 5 times in a row with one actor at a time, .* free memory"
    ):
        write(lambda number, name: FULL)


def test_actors_that_are_lost_again_and_again_end_it(write):
    with pytest.raises(RuntimeError, match=r"^5 actors were lost in a row, .* run the same command again to resume"):
        write(lambda number, name: ActorDiedError())


@pytest.mark.parametrize("error", [ValueError("image a does not decode"), PassingFault("x: No space left on device")])
def test_a_fault_that_an_actor_returns_is_raised_as_it_is(write, error):
    with pytest.raises(type(error)) as raised:
        write(lambda number, name: error)
    assert raised.value is error


def test_an_error_of_the_code_is_not_tried_again(write):
    with pytest.raises(RayTaskError):
        write(lambda number, name: RayTaskError("write", "Traceback\nKeyError: 1", KeyError(1)))


def test_all_actors_are_ended_with_the_pool(write):
    _, scheduler = write(written)
    assert sorted(scheduler.killed) == [1, 2, 3]
