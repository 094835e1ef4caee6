"""A run whose number of workers follows the cluster sees the batches that a run of a fixed number sees."""

import re

import pytest

from tests.faults.chaos import flags_for
from tests.faults.comparison import assert_nothing_is_left, assert_unharmed
from tests.support.local_cluster import local_cluster, wait_until
from tests.support.training_process import TrainingRun

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(900)]

_NUM_KILLS = 6  # as long as a run that is killed so often: Ray Train takes seconds to notice that a node has come
_ELASTIC = ["--cluster.num-workers", "1:4", "--cluster.resize-seconds", "3", "--cluster.num-loader-processes", "0"]
_SLOW_STEPS = ["--model.image-size-px", "128"]
_PATIENT = [
    "--cluster.hang-seconds",
    "120",
]  # nothing hangs here, however long a group takes to start on a busy machine


@pytest.fixture(scope="module")
def story(tmp_path_factory, drawn_shards):
    """Return what a run that grew from one worker to two, and shrank again, leaves."""
    flags = flags_for(_NUM_KILLS, drawn_shards)
    with local_cluster(num_nodes=1) as cluster:
        elastic = TrainingRun(
            cluster, tmp_path_factory.mktemp("home"), "elastic", [*flags, *_ELASTIC, *_SLOW_STEPS, *_PATIENT]
        )
        try:
            elastic.start()
            wait_for_workers(elastic, 1)
            cluster.add_node()
            wait_for_workers(elastic, 2)
            cluster.kill_node(cluster.nodes[0])
            wait_for_workers(elastic, 1)
            progress = elastic.progress()
            elastic.finish(seconds=300)
            yield elastic, progress, assert_nothing_is_left(cluster, [elastic])
        finally:
            elastic.stop()


def wait_for_workers(run, count, *, seconds=200):
    """Look until so many workers have taken a step past the next checkpoint."""

    def is_there():
        assert run.code() is None, f"it ended with {run.code()} before it had {count} workers:\n{run.log_tail()}"
        tick = run.look()
        return tick and tick.num_workers == count and tick.at > since and tick.step > run.saved_step + 1

    since = run.started_at if run.latest is None else run.latest.at
    wait_until(is_there, lambda: f"{count} workers train; last seen {run.latest}", seconds=seconds)


def steps_after(events, form):
    """Return the numbers that a form finds in events."""
    return [int(found[1]) for event in events if (found := re.search(form, event))]


def test_the_same_samples_train_in_the_same_batches_and_the_tracker_has_every_step_once(story):
    assert len(assert_unharmed(story[0], None)) == 3


def test_growth_is_no_failure(story):
    events = story[1].events
    grown = next(number for number, event in enumerate(events) if "resizing the group to 2 workers" in event)
    told = [event for event in events[: grown + 4] if "failed" in event or "was lost" in event or "hang" in event]
    assert told == []


def test_growth_resumes_at_a_checkpoint_that_was_written_for_it(story):
    events = story[1].events
    grown = next(number for number, event in enumerate(events) if "resizing the group to 2 workers" in event)
    saved = steps_after(events[grown:], r"checkpoint at step (\d+)")
    resumed = steps_after(events[grown:], r"attempt \d+ resumes at step (\d+) with 2 workers")
    assert resumed[0] in saved[:2]


def test_workers_that_are_gone_with_their_node_are_a_failure_that_is_borne(story):
    assert [event for event in story[1].events if "was lost" in event]


def test_nothing_is_left_of_it(story):
    assert story[2].startswith("no process, actor or placement group left")
