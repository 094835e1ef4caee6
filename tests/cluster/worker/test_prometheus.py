"""Metrics of a rank: what it sets, and the metrics page and log of a real run on a one-node cluster."""

import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.data.batches import BadSample
from captioning.training.collectives import Flags
from captioning.training.loop import StepResult
from cluster.config import ClusterConfig, StorageConfig, TrainRun
from cluster.resources.environment import set_library_defaults
from cluster.runs.record import RunRecord
from cluster.worker import prometheus
from cluster.worker.prometheus import MetricsExport
from tests.support.ports import free_port

NUM_STEPS = 8  # an epoch, in which every image comes once
BAD = BadSample("7", "train-000000.tar", 3, "truncated")


def result(step, *, seconds=0.5, bad=()):
    return StepResult(step, 2.0, 30, 10, 1.0, 0.1, Flags(), 0.1, seconds, bad)


class Recorder:
    """Stand-in for Ray's gauges and counter that records the values."""

    def __init__(self):
        self.values, self.num_sets = {}, 0

    def named(self, name):
        self.name = name
        return self

    def set(self, value, tags):
        self.values[self.name, tags["rank"]] = value
        self.num_sets += 1

    def inc(self, value, tags):
        self.values["bad", tags["rank"]] = self.values.get(("bad", tags["rank"]), 0) + value


@pytest.fixture
def recorded(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(prometheus, "_gauge", recorder.named)
    monkeypatch.setattr(prometheus, "_counter", lambda: recorder)
    return recorder


def test_metrics_are_set_at_most_once_a_second(recorded):
    now = [0.0]
    export = MetricsExport("r", 1, clock=lambda: now[0])
    for step in range(40):
        now[0] = step / 10
        export.record(result(step), stall_seconds=0.0)
    assert recorded.num_sets == 4 * 2


def test_what_came_between_is_in_the_mean(recorded):
    now = [0.0]
    export = MetricsExport("r", 0, clock=lambda: now[0])
    export.record(result(1), stall_seconds=0.0)
    for step, seconds in ((2, 0.2), (3, 0.6)):
        now[0] += 0.6
        export.record(result(step, seconds=seconds), stall_seconds=1.5)
    assert {name: round(value, 6) for (name, _), value in recorded.values.items()} == {
        "captioning_step": 3, "captioning_step_seconds": 0.4, "captioning_loss_nats": 2.0,
        "captioning_images_per_second": 25.0, "captioning_data_wait_seconds": 0.1,
        "captioning_checkpoint_stall_seconds": 1.5,
    }  # fmt: skip


def test_other_ranks_tell_of_themselves_alone(recorded):
    MetricsExport("r", 1).record(result(1, bad=(BAD,)), stall_seconds=0.0)
    assert sorted(recorded.values) == [("captioning_step", "1"), ("captioning_step_seconds", "1")]


def test_no_bad_sample_is_lost_between_two_looks(recorded):
    export = MetricsExport("r", 0, clock=lambda: 0.0)
    for step in range(3):
        export.record(result(step, bad=(BAD,)), stall_seconds=0.0)
    export.end(stall_seconds=0.0)
    assert recorded.values["bad", "0"] == 3


def test_without_ray_nothing_fails():
    MetricsExport("r", 0).record(result(1, bad=(BAD,)), stall_seconds=0.0)


@pytest.fixture(scope="module")
def ranked(drawn_shards, tmp_path_factory):
    """Return the metrics page and the worker's log, while the actor that has trained is still alive."""
    set_library_defaults()
    import ray

    home = tmp_path_factory.mktemp("home")
    shutil.copytree(drawn_shards, home / "shards")
    spoil_first_image(home / "shards" / "train-000000.tar")
    run = TrainRun(
        name="measured",
        shards=home / "shards",
        model=ModelConfig(
            backbone="squeezenet1_1", weights="none", image_size_px=36, embedding_size=8, hidden_size=8, dropout=0.0
        ),
        optimizer=OptimizerConfig(warmup_steps=2),
        training=TrainingConfig(num_epochs=NUM_STEPS * 15 / 120, batch_size=15, on_bad_sample="skip"),
        cluster=ClusterConfig(num_workers=1),
        storage=StorageConfig(home=home),
    )
    RunRecord(name=run.name, identity={}).save(run.folder)
    port = free_port()
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 500},
    )
    try:
        actor = ray.remote(num_cpus=1)(trainer()).remote()
        log = ray.get(actor.train.remote(run))
        yield page(f"http://127.0.0.1:{port}/metrics"), Path(log).read_text()
    finally:
        ray.shutdown()


def spoil_first_image(shard):
    with tarfile.open(shard) as archive:
        member = next(one for one in archive if one.name.endswith(".jpg"))
    with shard.open("r+b") as file:
        file.seek(member.offset_data)
        file.write(bytes(member.size))


def trainer():
    """Return an actor's class, pickled with its code, because workers cannot import the tests."""

    class Trainer:
        def train(self, run):
            """Train as a trial of a search does, without ending the process; return the path of its log."""
            from cluster.search.space.config import TuneRun
            from cluster.search.trainable import TrialContext, train_in_process

            context = TrialContext(run=TuneRun(), tracking_uri="", num_samples=120, lineage={})
            for _ in train_in_process(run, context):
                pass
            return str(Path("/proc/self/fd/2").readlink())

    return Trainer


def page(url, *, seconds=60):
    """Return a node's metrics page once it shows the last step."""
    deadline, text = time.monotonic() + seconds, ""
    while not re.search(rf"^ray_captioning_step\{{.*\}} {NUM_STEPS}", text, re.MULTILINE):
        assert time.monotonic() < deadline, text[-2000:]
        time.sleep(0.5)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, TimeoutError):
            continue
    return text


@pytest.mark.cluster
@pytest.mark.parametrize("name", list(prometheus.GAUGES))
def test_prometheus_finds_every_metric_with_run_and_rank(ranked, name):
    (line,) = re.findall(rf"^ray_{name}\{{.*$", ranked[0], re.MULTILINE)
    assert ('run="measured"' in line, 'rank="0"' in line) == (True, True)


@pytest.mark.cluster
def test_prometheus_finds_the_samples_that_were_left_out(ranked):
    assert re.findall(r"^ray_captioning_bad_samples_total\{.*\} (.*)$", ranked[0], re.MULTILINE) == ["1.0"]


@pytest.mark.cluster
def test_the_log_of_a_rank_names_run_rank_and_step(ranked):
    lines = re.findall(r"INFO run measured rank 0 step (\d+): (.*)", ranked[1])
    assert lines[0] == ("0", "starting attempt 1, world size 1, device cpu")
    assert lines[-1] == (f"{NUM_STEPS}", "training ended")
