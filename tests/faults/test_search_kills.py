"""Kill the driver of a search, a trial and a node; the search must end as one that nobody disturbed."""

import json
import subprocess
from collections import Counter

import psutil
import pytest

from cluster.config import StorageConfig, TrackingConfig
from cluster.runs.record import load_record
from cluster.search.trials import load_trials
from cluster.tracking.client import connect
from tests.support.command_line import captioning
from tests.support.local_cluster import local_cluster, strike, wait_until
from tests.support.training_process import command, environment

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(600)]

NUM_TRIALS, NUM_EPOCHS, NUM_STEPS = 4, 4, 32
SPACE = "optimizer.learning_rate: loguniform(1e-4, 1e-2)\nmodel.hidden_size: choice([8, 16])\n"
FLAGS = {
    "model.backbone": "squeezenet1_1",
    "model.weights": "none",
    "model.image-size-px": 64,
    "model.embedding-size": 16,
    "optimizer.warmup-steps": 2,
    "training.batch-size": 15,
    "num-trials": NUM_TRIALS,
    "max-epochs": NUM_EPOCHS,
    "scheduler": "none",
}


class SearchProcess:
    """``captioning tune`` as a process of its own, which may be started again and again."""

    def __init__(self, cluster, home, shards):
        self.home, self.folder, self._log = home, home / "tuning" / "s", home / "search.log"
        home.mkdir(parents=True, exist_ok=True)
        (home / "search.yaml").write_text(SPACE)
        flags = [text for key, value in FLAGS.items() for text in (f"--{key}", str(value))]
        places = [
            "--cluster.address",
            cluster.address,
            "--home",
            home,
            "--shards",
            shards,
            "--name",
            "s",
            "--no-extract",
        ]
        self.arguments = ["tune", *places, "--search", home / "search.yaml", "--json", *flags]
        self.driver = None

    def start(self):
        with self._log.open("a") as log:
            self.driver = subprocess.Popen(
                command(*self.arguments), env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
            )

    def finish(self):
        answer, _ = self.driver.communicate(timeout=300)
        assert self.driver.returncode == 0, self.log_tail()
        return json.loads(answer)

    def kill(self):
        self.driver.kill()
        self.driver.communicate()

    def log_tail(self):
        return self._log.read_text()[-3000:]

    def num_reports(self):
        return sum(len(trial.reports) for trial in load_trials(self.folder))


def trial_processes(cluster):
    """Return the live processes of trials that have begun."""
    nodes = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in cluster.nodes]
    return [
        child for node in nodes for child in node.children() if "TrialProcess" in child.name() + child.cmdline()[0]
        or "ResourceTrainable" in child.cmdline()[0]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def searches(tmp_path_factory, drawn_shards):
    """Return an undisturbed search, and one that was killed in three ways, with what it had reported at its kills."""
    home = tmp_path_factory.mktemp("home")
    with local_cluster(num_nodes=2) as cluster:
        undisturbed = SearchProcess(cluster, home / "undisturbed", drawn_shards)
        answer = captioning(*undisturbed.arguments)
        assert answer.code == 0, answer.told
        disturbed = SearchProcess(cluster, home / "disturbed", drawn_shards)
        try:
            known = _disturb(cluster, disturbed)
            wait_until(lambda: not cluster.strays(), lambda: f"nothing is left: {cluster.strays()}", seconds=60)
            yield undisturbed, disturbed, known
        finally:
            if disturbed.driver.poll() is None:
                disturbed.kill()


def _disturb(cluster, search):
    search.start()
    known = []
    for strike_now in (search.kill, lambda: strike(trial_processes(cluster)[0]), lambda: _lose_a_node(cluster)):
        before = search.num_reports()
        wait_until(
            lambda before=before: search.num_reports() > before and trial_processes(cluster),
            lambda: f"a trial reports:\n{search.log_tail()}",
            seconds=120,
        )
        known.append({(trial.number, *report) for trial in load_trials(search.folder) for report in trial.reports})
        strike_now()
        if search.driver.poll() is not None:
            search.start()
    search.finish()
    return known


def _lose_a_node(cluster):
    (process, *_) = trial_processes(cluster)
    cluster.kill_node(cluster.node_of(process))
    cluster.add_node()


def reports(search):
    return {
        trial.number: [(one.step, one.epoch, one.score) for one in trial.reports]
        for trial in load_trials(search.folder)
    }


def test_every_trial_ends_with_the_scores_of_an_undisturbed_search(searches):
    undisturbed, disturbed, _ = searches
    assert reports(disturbed) == reports(undisturbed)


def test_what_was_reported_before_a_kill_is_kept_as_it_was(searches):
    _, disturbed, known = searches
    kept = {(trial.number, *report) for trial in load_trials(disturbed.folder) for report in trial.reports}
    assert [before - kept for before in known] == [set(), set(), set()]


def test_no_step_before_a_checkpoint_is_computed_again(searches):
    """A trial that started again went on from its last checkpoint: attempts are counted, steps are journalled once."""
    _, disturbed, _ = searches
    trials = load_trials(disturbed.folder)
    attempts = [load_record(disturbed.folder / "training" / trial.name).attempt for trial in trials]
    assert (sum(attempts) > NUM_TRIALS, {trial.state for trial in trials}) == (True, {"finished"})


def test_the_tracker_has_one_parent_and_each_trial_with_each_step_once(searches):
    _, disturbed, _ = searches
    client = connect(TrackingConfig(), StorageConfig(home=disturbed.home))
    (experiment,) = client.search_experiments(filter_string="name = 'captioning'")
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    steps = [
        Counter(one.step for one in client.get_metric_history(run.info.run_id, "train_loss_nats")) for run in children
    ]
    assert (
        len(runs) - len(children),
        {run.info.status for run in runs},
        steps,
    ) == (1, {"FINISHED"}, [Counter(range(1, NUM_STEPS + 1))] * NUM_TRIALS)
