"""What release 0.1 left half-done goes on to its end under this one, and what it registered still serves."""

import base64
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from cluster.config import TrackingConfig
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import evaluate_split
from cluster.promotion.promotion import rollback
from cluster.registry.models import resolve_model
from cluster.runs.record import load_record
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.trials import load_trials
from cluster.search.tuner import tune
from cluster.tracking.client import connect
from cluster.training.trainer import fit
from tests.support.registered_versions import alias_of, make_champion
from tests.support.release import SHARDS_DIGEST, half_run, unpack_release

pytestmark = pytest.mark.cluster

SCORES = {"BLEU-1": 0.0166667, "CIDEr-D": 4.2608e-05, "ROUGE-L": 0.0306180}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return unpack_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def client(folder):
    return connect(TrackingConfig(), half_run(folder).storage)


def test_its_shard_set_is_read(folder):
    shard_set = ShardSet(folder / "shards")
    assert (shard_set.manifest.digest, shard_set.manifest.splits) == (SHARDS_DIGEST, {"train": 32, "val": 8})


def test_a_run_it_left_half_done_ends_in_the_same_mlflow_run(folder, client, session):
    run = half_run(folder)
    before = load_record(run.folder)
    fit(run)
    after = load_record(run.folder)
    assert (after.mlflow_run_id, after.attempt, after.is_finished) == (before.mlflow_run_id, before.attempt + 1, True)
    steps = [metric.step for metric in client.get_metric_history(before.mlflow_run_id, "train_loss_nats")]
    assert steps == list(range(1, 161))
    assert client.get_run(before.mlflow_run_id).info.status == "FINISHED"


def test_a_search_it_left_half_done_ends_under_the_same_parent(folder, client, session):
    base = half_run(folder)
    search = SearchConfig(space=folder / "search.yaml", num_trials=4, max_epochs=9)
    training = replace(base.training, num_epochs=10.0, checkpoint_every_steps=0)
    run = TuneRun(
        name="half-search",
        shards=base.shards,
        model=base.model,
        optimizer=base.optimizer,
        training=training,
        cluster=base.cluster,
        storage=base.storage,
        search=search,
    )
    before = json.loads((run.folder / "search.json").read_text())
    outcome = tune(run)
    known = [trial.point for trial in load_trials(run.folder)]
    assert (outcome.mlflow_run_id, len(known)) == (before["mlflow_run_id"], 4)
    assert client.get_run(outcome.mlflow_run_id).info.status == "FINISHED"


def test_a_version_it_registered_scores_as_it_did(folder, client):
    model = resolve_model("models:/captioner/1", client)
    settings = {"generation": model.generation, "batch_size": 8}
    found = evaluate_split(model.folder, ShardSet(folder / "shards"), "val", step=12, **settings)
    assert {name: found.scores[name] for name in SCORES} == pytest.approx(SCORES, rel=1e-3)


def test_a_version_it_registered_is_promoted_and_rolled_back(folder, client):
    assert alias_of("captioner", client) == "1"
    make_champion("captioner", client, "2")
    assert alias_of("captioner", client) == "2"
    rollback("captioner", client, reason="as before")
    assert alias_of("captioner", client) == "1"


def test_a_version_it_registered_serves_by_its_own_code(folder, client, tmp_path):
    # In a process of its own: a version brings the package ``captioning`` of its release.
    source = client.get_model_version("captioner", "1").source.removeprefix("file://")
    program = (
        "import json, sys, warnings; warnings.simplefilter('ignore')\n"
        "import mlflow, pandas\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "written = model.predict(pandas.DataFrame({'image': [sys.stdin.read()]}))\n"
        "import captioning; print(json.dumps([written['caption'][0], captioning.__file__]))\n"
    )
    shard = ShardSet(folder / "shards")
    image = base64.b64encode(shard.reader("val").read(0).jpeg).decode()
    done = subprocess.run(
        [sys.executable, "-c", program, source], input=image, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    caption, package = json.loads(done.stdout.splitlines()[-1])
    assert (set(caption.split()), package.startswith(source)) == ({"blue"}, True)
