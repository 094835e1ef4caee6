"""``captioning train --dry-run`` and ``captioning tune --dry-run``: where it would run, and how long it takes."""

import json
import os
import time

import pytest

from cluster.checks import rehearsal
from cluster.config import ClusterConfig, TrainRun
from cluster.data.shard_set import ShardSet
from cluster.resources.gcs import list_nodes
from jobs.cli import run_job
from tests.support.command_line import captioning

pytestmark = pytest.mark.cluster

MODEL = "--model.backbone squeezenet1_1 --model.weights none --model.image-size-px 64 --model.embedding-size 16"


@pytest.fixture
def dry(session, drawn_shards, tmp_path, capsys):
    """Return a function that looks at a job, and returns (exit code, standard output, standard error)."""

    def run(job, *arguments):
        own = ["--shards", f"{drawn_shards}", "--home", f"{tmp_path}", "--dry-run", *MODEL.split(), *arguments]
        with pytest.raises(SystemExit) as ended:
            run_job(job, own)
        assert list(tmp_path.iterdir()) == []
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("where", [(), ("--cluster.address", "auto")], ids=["in this process", "as a task"])
def test_a_training_is_estimated_by_a_step_where_it_would_run(dry, where):
    code, printed, told = dry("train", "--json", *where)
    plan = json.loads(printed)
    assert (code, plan["num_samples"], plan["num_steps"], plan["num_workers"]) == (0, 120, 19, 2)
    assert plan["estimate"]["seconds"] == pytest.approx(19 * plan["estimate"]["seconds_per_step"])
    assert [node["total"] >= 2 for node in plan["nodes"]] == [True]
    assert "would train run train for 19 steps of 64 images on 2 workers, with 120 samples" in told
    assert " on 2 workers, at " in told


def test_training_knows_its_features(dry, drawn_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    encoder, _, _ = MODEL.partition(" --model.embedding-size")
    captioning("extract", drawn_shards, folder, "--num-workers", "0", *encoder.split())
    code, _, told = dry("train", "--features", f"{folder}")
    assert (code, "would train" in told) == (0, True)


def test_an_elastic_training_takes_what_there_is(dry):
    code, printed, told = dry("train", "--json", "--cluster.num-workers", "1:60")
    assert (code, json.loads(printed)["num_workers"] < 60, "of 64 images on 1 to 60 workers" in told) == (0, True, True)


def test_more_workers_than_fit_are_refused(dry):
    code, _, told = dry("train", "--cluster.num-workers", "64")
    assert (code, "error: 64 workers of 1 CPU do not fit" in told) == (2, True)


def test_a_search_is_estimated_likewise(dry):
    code, printed, told = dry("tune", "--json", "--num-trials", "3", "--max-epochs", "2", "--cluster.address", "auto")
    plan = json.loads(printed)
    assert (code, plan["num_trials"], plan["steps_per_trial"], plan["num_views"]) == (0, 3, 4, 150)
    assert plan["seconds"] > 0
    assert "would run 3 trials " in told
    assert "feature extraction before the trials: about " in told


@pytest.fixture
def run(session):
    """Return a run on a cluster that is as free again as before the last one."""
    deadline = time.monotonic() + 20
    while not all(node.free.get("CPU") == node.total["CPU"] for node in list_nodes()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return TrainRun(cluster=ClusterConfig(address="auto"))


def test_where_no_worker_fits_in_now_nothing_is_measured(run, drawn_shards):
    import ray

    group = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
    ray.get(group.ready())
    found = rehearsal.rehearse(run, ShardSet(drawn_shards))
    ray.util.remove_placement_group(group)
    assert (found.timing, found.why_not) == (None, "no worker fits while other jobs use the cluster")


def test_a_search_without_an_estimate_says_why(dry, monkeypatch):
    monkeypatch.setattr(rehearsal, "_measure_there", lambda *_, **__: (None, "too slow"))
    code, printed, told = dry("tune", "--json", "--cluster.address", "auto")
    assert (code, "seconds" in json.loads(printed), "no estimate: too slow" in told) == (0, False, True)


def step_that(does, *arguments):
    """Return what takes the place of ``measure_step``; a function of a function travels by its code."""

    def step(*_, **__):
        does(*arguments)

    return step


def fail(error):
    def raise_it():
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("step", "seconds", "why"),
    [
        (step_that(time.sleep, 600), 5.0, "two steps took more than 5 s"),
        (step_that(os._exit, 1), 300.0, "the process that took the steps was lost ("),
        (step_that(fail(KeyError("x"))), 300.0, "a training step failed there: KeyError: 'x'"),
    ],
    ids=["hangs", "dies", "fails"],
)
def test_why_no_step_was_measured_is_told(run, drawn_shards, monkeypatch, step, seconds, why):
    monkeypatch.setattr(rehearsal, "measure_step", step)
    monkeypatch.setattr(rehearsal, "_MEASURE_SECONDS", seconds)
    found = rehearsal.rehearse(run, ShardSet(drawn_shards))
    assert (found.timing, found.why_not[: len(why)]) == (None, why)


def test_bad_input_that_a_step_finds_is_refused_as_it_is(run, drawn_shards, monkeypatch):
    monkeypatch.setattr(rehearsal, "measure_step", step_that(fail(ValueError("shard x is damaged; make it again"))))
    with pytest.raises(ValueError, match=r"^shard x is damaged; make it again$"):
        rehearsal.rehearse(run, ShardSet(drawn_shards))
