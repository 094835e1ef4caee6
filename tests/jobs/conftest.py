"""Fixtures that run jobs from their command lines, in this process."""

import json
import shutil

import pytest

from jobs.cli import run_job


@pytest.fixture
def captioning(capsys):
    """Return a function that runs a job and returns (exit code, standard output, standard error)."""

    def run(job, *arguments):
        with pytest.raises(SystemExit) as ended:
            run_job(job, [str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.fixture
def tiny_home(tiny_run, monkeypatch):
    """Make the home folder of ``tiny_run`` the home folder of all jobs."""
    monkeypatch.setenv("CAPTIONING_HOME", str(tiny_run.parent.parent))


@pytest.fixture(scope="session")
def registry_home(tmp_path_factory, empty_tracker):
    """Return a home folder with a registry that the tests of promote, rollback, history and models share."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_tracker, folder)
    return folder


@pytest.fixture(scope="session")
def registry_client(registry_home):
    from cluster.config import StorageConfig, TrackingConfig
    from cluster.tracking.client import connect

    return connect(TrackingConfig(), StorageConfig(home=registry_home))


@pytest.fixture(scope="session")
def trained_sources(tmp_path_factory, drawn_shards):
    """Return the sources of versions, by their number of training steps."""
    from cluster.data.shard_set import ShardSet
    from tests.support.registered_versions import servable
    from tests.support.trained_models import BETTER, WORSE, trained

    folder, shard_set = tmp_path_factory.mktemp("models"), ShardSet(drawn_shards)
    for steps in (WORSE, BETTER):
        trained(folder / f"trained-{steps}", shard_set, steps)
    return {steps: servable(folder / f"trained-{steps}", folder / f"model-{steps}") for steps in (WORSE, BETTER)}


@pytest.fixture
def registry_job(captioning, registry_home, drawn_shards, monkeypatch):
    """Return a function that runs a job and returns (exit code, JSON document, standard error)."""
    monkeypatch.setenv("CAPTIONING_HOME", str(registry_home))

    def run(job, *arguments):
        gate = ("--shards", drawn_shards, "--num-resamples", 200, "--num-behaviour-images", 4)
        code, printed, told = captioning(job, *arguments, "--json", *(gate if job == "promote" else ()))
        return code, json.loads(printed) if printed else None, told

    return run


@pytest.fixture
def name(request, registry_client, trained_sources):
    """Return the name of a model for one test: its champion is version 1, the worse; its challenger is version 2."""
    from tests.support.registered_versions import add_version, make_champion
    from tests.support.trained_models import BETTER, WORSE

    name = request.node.name
    add_version(name, registry_client, trained_sources[WORSE])
    make_champion(name, registry_client, "1")
    add_version(name, registry_client, trained_sources[BETTER])
    return name


@pytest.fixture
def told(monkeypatch, capsys):
    """Return the progress lines of a training run in a submitted job: at step 1, and 50 steps and 10 s later."""
    from cluster.coordination.messages import RunProgress, WorkerInfo
    from cluster.runs.journal import Row
    from cluster.runs.record import CommittedCheckpoint
    from cluster.runs.score_history import VALIDATION_LOSS
    from cluster.training.progress import ProgressLog

    monkeypatch.setenv("CAPTIONING_JOB", "big-1")
    metrics = {"epoch": 0.5, "train_loss_nats": 2.5, "images_per_second": 80.0, "data_wait_share": 0.25}
    workers = tuple(WorkerInfo(rank, "n" * 56, f"host-{rank}", 7, f"/logs/{rank}.err") for rank in range(2))
    now = [0.0]
    about = {"run": "big", "mlflow_run_id": "abc", "tracking": "http://mlflow:5000"}
    log = ProgressLog(100, about=about, clock=lambda: now[0])
    log.show(RunProgress(2, Row(1, 0, metrics), [], workers=workers))
    now[0] = 10.0
    validated = CommittedCheckpoint(step=40, attempt=2, metrics={VALIDATION_LOSS: 2.25})
    log.show(
        RunProgress(
            2,
            Row(51, 0, metrics),
            [],
            workers=workers,
            phase="training",
            latest=CommittedCheckpoint(step=50, attempt=2),
            best=validated,
            validated=validated,
        )
    )
    return capsys.readouterr().err.splitlines()
