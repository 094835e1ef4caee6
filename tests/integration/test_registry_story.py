"""The registry as people meet it: model follows model, on a tracker with passwords, and MLflow serves the champion."""

import base64
import json
import shlex
import warnings

import mlflow
import pandas
import pytest

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from shards.synthetic.scenes import draw_scene, render, write_scenes
from tests.support.command_line import captioning
from tests.support.mlflow_servers import ADMIN, BIN, cluster_of_user, post, served, tracker
from tests.support.pictures import encoded

pytest.importorskip("flask_wtf", reason="MLflow's basic-auth app needs Flask-WTF: install the extra test")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

SMALL = (
    "--model.backbone squeezenet1_1 --model.weights none --model.trainable-from all --model.image-size-px 64 "
    "--model.decoder attend --model.hidden-size 64 --model.embedding-size 32 --model.num-heads 4 --model.dropout 0 "
    "--optimizer.learning-rate 2e-3 --training.batch-size 20 --training.crop-area 0.8 --training.no-flip "
    "--cluster.num-workers 1"
)
TRAINED = "--training.num-epochs 12 --training.checkpoint-every-steps 15 --training.keep-last 16"
# The poor model writes the same of nearly every image, and so of a changed one too: the good one need not.
GATE = "--max-same-caption-drop-points 90"
UNSEEN = [encoded(render(draw_scene(9, number, size_px=64))) for number in range(12)]
ROWS = [{"image": base64.b64encode(content).decode()} for content in UNSEEN]


class World:
    """A tracker, data, and what people type."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.captions = {}

    def type(self, command):
        """Run a command; return its code, its result if that is JSON, and what it says to people."""
        arguments = [*shlex.split(command), "--home", self.folder / "home"]
        answer = captioning(*arguments)
        return answer.code, json.loads(answer.out) if "--json" in arguments else answer.out, answer.told

    def must(self, command):
        code, result, said = self.type(command)
        assert code == 0, said
        return result

    def train(self, name, options):
        """Train a model; return the folder of its run."""
        self.must(f"train --shards {self.folder}/shards --name {name} {SMALL} {options}")
        return self.folder / "home" / "training" / name

    def bring(self, model):
        """Make a model the challenger; return its version."""
        version = self.must(f"register {model} captioner --json")["version"]
        written = self.must(f"caption {self.folder}/unseen --model models:/captioner/{version} --json")
        self.captions[version] = [one["captions"][0] for one in written]
        return version

    def promote(self, options=""):
        return self.type(f"promote captioner --shards {self.folder}/shards --split val {GATE} {options}")

    def must_promote(self, options=""):
        code, _, said = self.promote(options)
        assert code == 0, said

    def ask_the_champion(self):
        """Return what the champion says about the unseen scenes, loaded as MLflow's server loads it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            champion = mlflow.pyfunc.load_model("models:/captioner@champion")
            return [*champion.predict(pandas.DataFrame(ROWS))["caption"]]

    def ask_the_server(self):
        """Return what MLflow's own server of the champion says about the unseen scenes."""
        command = [BIN / "mlflow", "models", "serve", "--model-uri", "models:/captioner@champion"]
        command += ["--env-manager", "local", "--port"]
        with served(command, self.server.environment(), self.folder / "served.log") as address:
            return [one["caption"] for one in post(address, {"dataframe_records": ROWS})[1]["predictions"]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_scenes(folder / "scenes", num_train=400, num_val=60, seed=1, size_px=64)
    plan = plan_conversion(
        folder / "scenes", folder / "shards", ConversionConfig(samples_per_shard=100, minimum_word_count=1)
    )
    convert(plan, num_workers=0)
    (folder / "unseen").mkdir()
    for number, content in enumerate(UNSEEN):
        (folder / "unseen" / f"{number:02}.jpg").write_bytes(content)
    with tracker(tmp_path_factory.mktemp("tracker")) as server, cluster_of_user(server):
        yield World(server, folder)


def test_a_model_follows_another_and_the_champion_is_always_the_right_one(world):
    good = world.train("good", TRAINED)
    earliest, _, _, poor, *_ = sorted((good / "checkpoints").iterdir())
    assert world.bring(poor) == "1"
    world.must_promote()
    assert world.ask_the_champion() == world.captions["1"]

    assert world.bring(good) == "2"
    world.must_promote("--dry-run")
    assert world.ask_the_champion() == world.captions["1"]
    world.must_promote()
    assert world.ask_the_champion() == world.captions["2"]

    assert world.bring(earliest) == "3"
    code, _, said = world.promote()
    assert (code, "captioner version 3 is refused; the champion is unchanged" in said) == (3, True)
    assert world.ask_the_champion() == world.captions["2"]

    world.must_promote("--force --reason 'to see it recorded'")
    assert world.ask_the_champion() == world.captions["3"]

    world.must("rollback captioner")
    assert world.ask_the_champion() == world.ask_the_server() == world.captions["2"]
    assert len({tuple(captions) for captions in world.captions.values()}) == 3

    changes = world.must("history captioner --json")["changes"]
    told = [(one["kind"], one["over"], one["version"], one["by"]) for one in changes]
    assert told == [
        ("promoted", None, "1", ADMIN),
        ("promoted", "1", "2", ADMIN),
        ("forced", "2", "3", ADMIN),
        ("rolled back", "3", "2", ADMIN),
    ]
    assert "to see it recorded" in changes[2]["reason"]
    assert changes[1]["evidence"]["is_passed"] is True
    assert changes[2]["evidence"]["is_passed"] is False
