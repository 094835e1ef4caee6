"""A worker that was cut off and replaced, and does not know it: what it goes on writing never counts."""

import os
import signal
import uuid

import psutil
import pytest
import ray

from captioning.training.checkpoint_description import CheckpointDescription
from cluster.config import ClusterConfig, StorageConfig, TrackingConfig
from cluster.coordination.client import CoordinatorClient
from cluster.coordination.messages import CoordinatorSettings
from cluster.resources.session import cluster_session
from cluster.runs.record import RunRecord, load_record, store_of
from cluster.tracking.client import connect, create_run, tracking_uri
from cluster.tracking.experiment import experiment_id
from cluster.training.driver import start_coordinator
from cluster.worker.checkpointing import BackgroundWriter, CheckpointSaver
from tests.support.local_cluster import wait_until
from tests.support.tiny_models import MODEL, VOCABULARY, training_state

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


@pytest.fixture(scope="module")
def session():
    with cluster_session(ClusterConfig()):
        yield


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return StorageConfig(home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def folder(tmp_path, storage):
    """Return the folder of a run that has just started."""
    client = connect(TrackingConfig(), storage)
    experiment = experiment_id(client, TrackingConfig(), storage)
    key = uuid.uuid4().hex
    run_id = create_run(client, experiment, key=key, name="r", parameters={}, tags={})
    RunRecord(name="r", identity={}, mlflow_run_id=run_id, num_starts=1).save(tmp_path)
    return tmp_path


@pytest.fixture
def coordinator(session, folder, storage):
    settings = CoordinatorSettings(tracking_uri=tracking_uri(TrackingConfig(), storage), driver_pid=os.getpid())
    actor = start_coordinator(folder, settings)
    yield actor
    ray.get(actor.finish.remote("KILLED"))
    ray.kill(actor)


@pytest.fixture
def begin(coordinator, folder):
    """Return a function that begins an attempt, and returns what writes its checkpoints."""

    def start():
        client = CoordinatorClient(coordinator, 0, batch_size=1)
        attempt = client.begin_attempt([])
        client.join_attempt(attempt)
        started.append(client)
        return CheckpointSaver(
            store_of(folder, None), client, attempt.number, VOCABULARY, "name: r\n", BackgroundWriter()
        )

    started = []
    yield start
    for client in started:
        client.close()


def save(saver, step):
    """Write the checkpoint of a step, and return when it counts."""
    state = training_state()
    state.step = step
    description = CheckpointDescription(
        step=step, model=MODEL, vocabulary_digest=VOCABULARY.digest, max_caption_words=8
    )
    saver.save(state, description, metrics={}).result()


@pytest.fixture
def replaced(begin, monkeypatch):
    """Return the writers of an attempt that was replaced, and of the one that replaced it."""
    # The thread that would end this process, as soon as it heard of the other attempt, is the next fixture's matter.
    monkeypatch.setattr(CoordinatorClient, "_exit", lambda client, why: None)
    return begin(), begin()


def test_a_checkpoint_of_a_replaced_attempt_is_refused(replaced, folder):
    with pytest.raises(PermissionError, match="attempt 1 was replaced by 2; its checkpoint is not committed"):
        save(replaced[0], 7)
    assert load_record(folder).checkpoints == ()


def test_what_a_replaced_attempt_wrote_is_removed_at_the_next_commit(replaced, folder):
    old, new = replaced
    with pytest.raises(PermissionError, match="was replaced"):
        save(old, 7)
    save(new, 5)
    left = folder / "checkpoints"
    wait_until(
        lambda: [path.name for path in left.iterdir()] == ["step-00000005-attempt-2"],
        lambda: f"{sorted(left.iterdir())} are the new attempt's alone",
        seconds=10,
    )


def test_rows_of_a_replaced_attempt_are_dropped(replaced, coordinator):
    replaced[0].coordinator.add_row(3, {"loss": 1.0})
    replaced[0].coordinator.close()
    assert ray.get(coordinator.progress.remote()).row is None


def test_a_worker_that_wakes_up_after_it_was_replaced_ends_itself(coordinator, begin):
    worker = ray.remote(num_cpus=0)(CoordinatorClient).remote(coordinator, 0, batch_size=1)
    ray.get(worker.join_attempt.remote(ray.get(worker.begin_attempt.remote([]))))
    process = psutil.Process(ray.get(worker.__ray_call__.remote(lambda _: os.getpid())))
    process.send_signal(signal.SIGSTOP)
    begin()
    process.send_signal(signal.SIGCONT)
    gone, _ = psutil.wait_procs([process], timeout=10)
    assert gone == [process]
