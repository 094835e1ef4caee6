"""README's way from a bare Ray cluster to a promoted model, on hosts that share nothing but a mount and a network.

In the middle of training a worker's host is cut off, and comes back after training has gone on without it.
"""

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from cluster.runs.record import load_record
from cluster.runs.sample_ledger import audit, read_sample_ledger
from shards.synthetic.scenes import write_scenes
from tests.support.hosts import BIN, hosts_or_skip
from tests.support.local_cluster import wait_until
from tests.support.repository import README, ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(900)]

(STORY,) = re.findall(r"```shell\n(.*?)```", README, re.DOTALL)
EXPORT, *COMMANDS = STORY.replace("\\\n", " ").strip().splitlines()
CONVERT, CHECK, TUNE, TRAIN, WATCH, LOGS, EVALUATE, REGISTER, PROMOTE, MODELS = COMMANDS
NAMES = ("head", "worker-1", "worker-2", "s3", "mlflow", "laptop")
NUM_IMAGES, BATCH, NUM_EPOCHS = 240, 16, 8
NUM_STEPS = NUM_IMAGES * NUM_EPOCHS // BATCH
SMALL = (
    "--model.backbone squeezenet1_1 --model.weights none --model.image-size-px 64 --model.hidden-size 16 "
    f"--training.batch-size {BATCH}"
)
SHORT_SEARCH = f"{SMALL} --num-trials 1 --max-epochs 1"
# Without what pays in a long training alone, the model learns enough to be promoted.
LEARN_FAST = "--model.image-input first --training.ema-decay 0 --training.label-smoothing 0"
SHORT_TRAINING = (
    f"{SMALL} {LEARN_FAST} --training.num-epochs {NUM_EPOCHS} --training.checkpoint-every-steps 15 --ledger"
)
# A dead node is noticed within seconds, not within a minute.
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
# Once the node of a lost worker is dead, the one that is left has room for a group of one alone.
COUNT_NODES_AGAIN = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5"}
S3 = {
    "AWS_ENDPOINT_URL": "http://s3:9000",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
TRACKED = """
import json
from mlflow import MlflowClient
client = MlflowClient("http://mlflow:5000")
runs = client.search_runs(["1"], "attributes.run_name = 'first'")
steps = [metric.step for run in runs for metric in client.get_metric_history(run.info.run_id, "train_loss_nats")]
print(json.dumps({"statuses": [run.info.status for run in runs], "steps": steps}))
"""


def start_ray(host, *arguments, **variables):
    sizes = ["--object-store-memory", "80000000", "--temp-dir", host.home / "ray", "--node-ip-address", host.address]
    return host.start(BIN / "ray", "start", "--block", *sizes, *arguments, **S3, **variables)


@pytest.fixture(scope="module")
def hosts():
    """Return the hosts: Ray's head and two workers, an S3 server, an MLflow server, and one that only submits."""
    with hosts_or_skip(NAMES, sharing=NAMES[:3], environment=COUNT_NODES_AGAIN | {"PYTHONPATH": f"{ROOT}"}) as hosts:
        head, mlflow = hosts["head"], hosts["mlflow"]
        hosts["s3"].start(BIN / "moto_server", "--host", "0.0.0.0", "--port", "9000")
        kept = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", mlflow.home / "artifacts"]
        listen = ["--host", "0.0.0.0", "--port", "5000", "--allowed-hosts", "mlflow:5000", "--workers", "1"]
        mlflow.start(BIN / "mlflow", "server", *kept, *listen, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        start_ray(head, "--head", "--port", "6379", "--num-cpus", "0", "--dashboard-host", "0.0.0.0", **QUICK)
        write_scenes(hosts.mounted / "coco", num_train=NUM_IMAGES, num_val=60, seed=3, size_px=64)
        wait_until(lambda: head.answers(6379), lambda: "Ray's head answers", seconds=90)
        for name in NAMES[1:3]:
            start_ray(hosts[name], "--address", "head:6379", "--num-cpus", "1")
        for host, port in ((hosts["s3"], 9000), (mlflow, 5000), (head, 8265)):
            wait_until(lambda: host.answers(port), lambda: f"{host.name} answers", seconds=90)  # noqa: B023
        hosts["s3"].run(sys.executable, "-c", "import s3fs; s3fs.S3FileSystem().mkdir('captions')", **S3)
        wait_until(lambda: num_nodes(head) == 3, lambda: "Ray has three nodes", seconds=60)
        yield hosts


def num_nodes(head):
    ask = "import urllib.request; print(urllib.request.urlopen('http://head:8265/nodes?view=summary').read().decode())"
    return head.run(sys.executable, "-S", "-c", ask).count('"state": "ALIVE"')


@pytest.fixture(scope="module")
def captioning(hosts):
    """Return what runs a command line in this checkout, on the host that is no part of the cluster."""
    variables = dict(word.split("=", 1) for word in shlex.split(EXPORT)[1:])

    def run(command, *, seconds=300):
        line, environment = hosts["laptop"].command(*shlex.split(command), folder=ROOT, **variables)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=seconds)
        return SimpleNamespace(code=done.returncode, told=f"{done.stdout}{done.stderr}")

    return run


@pytest.fixture(scope="module")
def converted(captioning):
    """Return how the conversion ended, that all else needs."""
    return captioning(CONVERT)


@pytest.fixture(scope="module")
def searched(captioning, converted):
    """Return how the search ended."""
    return captioning(f"{TUNE} {SHORT_SEARCH}")


@pytest.fixture(scope="module")
def trained(hosts, captioning, searched):
    """Return how training ended, one of whose workers was cut off after the first checkpoint."""
    folder = hosts.mounted / "runs" / "training" / "first"
    submitted = captioning(f"{TRAIN} {SHORT_TRAINING}")

    def latest(**wanted):
        """Return the latest checkpoint that counts, if it is as wanted."""
        record = load_record(folder)
        found = record.latest if record else None
        return found if found and all(getattr(found, name) == value for name, value in wanted.items()) else None

    wait_until(lambda: latest(attempt=1), lambda: "two workers wrote a checkpoint", seconds=300)
    hosts.cut("worker-2")
    cut_at = load_record(folder).latest.step
    wait_until(lambda: latest(attempt=2), lambda: "one worker went on", seconds=180)
    hosts.heal("worker-2")
    watched = captioning(WATCH)
    return SimpleNamespace(
        submitted=submitted, watched=watched, cut_at=cut_at, record=load_record(folder), folder=folder
    )


@pytest.fixture(scope="module")
def registered(captioning, trained):
    """Return how the model that was trained was evaluated and registered."""
    return captioning(EVALUATE), captioning(REGISTER)


def test_photographs_become_shards_in_the_object_store(converted):
    assert (converted.code, "s3://captions/coco-shards: images 240 train, 60 val" in converted.told) == (0, True), (
        converted.told
    )


def test_every_check_passes(captioning, converted):
    checked = captioning(CHECK)
    assert (checked.code, checked.told.count(" ok "), "failed" in checked.told) == (0, 7, False), checked.told


def test_a_home_folder_that_every_host_has_for_itself_is_refused(captioning, converted):
    refused = captioning(CHECK.replace("check", "train") + f" {SHORT_TRAINING} --home /srv/runs")
    message = (
        r"error: home folder /srv/runs cannot be used on 2 of 3 nodes, first 10\.77\.0\.\d \(it does not see a file "
        r"that another node wrote there\); set --home to storage that all nodes mount"
    )
    assert (refused.code, bool(re.search(message, refused.told))) == (2, True), refused.told


def test_a_search_leaves_its_best_settings(hosts, searched):
    best = hosts.mounted / "runs" / "tuning" / "search" / "best.yaml"
    assert (searched.code, best.is_file()) == (0, True), searched.told


def test_a_job_that_is_cut_in_two_ends_well(trained):
    assert (trained.submitted.code, trained.watched.code) == (0, 0), trained.watched.told
    last_line = trained.watched.told.strip().splitlines()[-1]
    assert re.search(rf"SUCCEEDED, .* step {NUM_STEPS} of {NUM_STEPS} .* workers 1 on 1 host", last_line), last_line


def test_the_worker_that_was_cut_off_is_named(captioning, trained):
    told = captioning("captioning logs first-1").told
    assert re.search(r"rank \d was lost after step \d+", told), told


def test_the_log_of_a_rank_that_trained_to_the_end_is_there(captioning, trained):
    logs = captioning(LOGS)
    assert (logs.code, f"run first rank 0 step {NUM_STEPS}: training ended" in logs.told) == (0, True), logs.told


def test_nothing_that_was_written_after_the_cut_by_the_group_that_was_cut_counts(trained):
    attempts = {checkpoint.attempt for checkpoint in trained.record.checkpoints if checkpoint.step > trained.cut_at}
    assert (trained.record.attempt, attempts, trained.record.is_finished) == (2, {2}, True)


def test_the_object_store_holds_the_checkpoints_that_count_and_no_others(hosts, trained):
    ask = "import s3fs; print(*s3fs.S3FileSystem().glob('captions/checkpoints/**/step-*'))"
    found = hosts["s3"].run(sys.executable, "-c", ask, **S3).split()
    names = {part for path in found for part in path.split("/") if part.startswith("step-")}
    assert names == {checkpoint.name for checkpoint in trained.record.checkpoints}


def test_every_sample_trained_once_an_epoch(trained):
    samples = read_sample_ledger(trained.folder / "ledger")
    found = audit(samples, num_steps=NUM_STEPS, batch_size=BATCH, num_samples=NUM_IMAGES)
    assert (sorted(samples.batches), found.num_epochs, found.is_exact) == (
        list(range(1, NUM_STEPS + 1)), NUM_EPOCHS, True,
    )  # fmt: skip


def test_the_tracker_has_one_run_with_every_step_once(hosts, trained):
    told = json.loads(hosts["laptop"].run(sys.executable, "-c", TRACKED))
    assert (told["statuses"], Counter(told["steps"])) == (["FINISHED"], Counter(range(1, NUM_STEPS + 1)))


def test_ray_on_the_host_that_was_cut_off_ends_once_it_hears_of_it(hosts, trained):
    processes = lambda: hosts["worker-2"].run("ps", "-A", "-o", "comm").split()  # noqa: E731
    wait_until(lambda: "raylet" not in processes(), lambda: f"Ray has ended among {processes()}", seconds=60)


def test_the_model_is_promoted(captioning, registered):
    evaluated, registration = registered
    promoted = captioning(PROMOTE)
    codes = evaluated.code, registration.code, promoted.code
    assert (codes, "captioner version 1 is now the champion" in promoted.told) == ((0, 0, 0), True), promoted.told
    assert "champion" in captioning(MODELS).told
