"""What a registered version holds and says of itself, and that it is served by that alone."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from captioning.config import ModelConfig, OptimizerConfig
from captioning.model.caption_model import CaptionModel
from captioning.training.checkpoint import load_model, save_checkpoint
from captioning.training.loop import TrainingState
from captioning.training.optimizer import build_optimizer
from cluster.evaluation.evaluate import load_captioner
from cluster.registry.logged_models import record_of
from cluster.registry.models import resolve_model
from cluster.registry.registration import register
from cluster.registry.safe_loading import stored_at
from tests.support.served_versions import SCENES, ask, expected, load, text


def test_the_version_says_what_it_takes_and_gives(served):
    signature = served.metadata.signature
    assert (signature.inputs.input_names(), signature.params.to_dict()) == (
        ["image"],
        [
            {"name": "beam", "type": "long", "default": 3, "shape": None},
            {"name": "length_power", "type": "double", "default": 1.0, "shape": None},
            {"name": "min_words", "type": "long", "default": 0, "shape": None},
            {"name": "no_repeat_ngram", "type": "long", "default": 3, "shape": None},
            {"name": "groups", "type": "long", "default": 1, "shape": None},
            {"name": "group_penalty", "type": "double", "default": 0.5, "shape": None},
            {"name": "temperature", "type": "double", "default": 0.0, "shape": None},
            {"name": "top_p", "type": "double", "default": 1.0, "shape": None},
            {"name": "sampling_seed", "type": "long", "default": 0, "shape": None},
            {"name": "max_length", "type": "long", "default": 8, "shape": None},
            {"name": "num_captions", "type": "long", "default": 1, "shape": None},
        ],
    )


def test_the_example_of_the_version_is_answered(served):
    answers = served.predict(served.input_example).to_dict("records")
    assert [one["error"] for one in answers] == [None]


@pytest.mark.parametrize("decoder", ["attend", "transformer"])
def test_a_version_of_each_decoder_is_served(client, tiny_run, tmp_path, decoder):
    _, vocabulary, description = load_model(resolve_model(str(tiny_run), client).folder)
    config = ModelConfig(
        decoder=decoder, backbone="squeezenet1_1", weights="none", image_size_px=36, hidden_size=8, num_heads=3
    )
    model = CaptionModel(config, vocabulary_size=len(vocabulary))
    state = TrainingState(model, build_optimizer(model, OptimizerConfig()))
    save_checkpoint(tmp_path / "c", state, vocabulary, description=replace(description, model=config), config="name: r")
    created = register(resolve_model(str(tmp_path / "c"), client), decoder, client)
    answers = ask(load(created, client), *map(text, SCENES))
    assert [one["caption"] for one in answers] == [one.captions[0] for one in expected(tmp_path / "c", client, SCENES)]
    assert record_of(created, client)["decoder.num_heads"] == "3"


def test_a_version_serves_and_is_judged_in_the_precision_that_was_registered(client, tiny_run):
    created = register(resolve_model(str(tiny_run), client), "coarse", client, precision="bf16")
    model = resolve_model("models:/coarse/1", client)
    captioner = load_captioner(model.folder, batch_size=16, precision="bf16")
    answers = ask(load(created, client), *map(text, SCENES))
    assert model.precision == "bf16"
    assert [one["log_probability"] for one in answers] == [one.log_probability for one in captioner.caption(SCENES)]


def test_the_version_holds_its_configuration_and_no_pickle(stored, client):
    root = Path(stored_at(stored, client).removeprefix("file://"))
    # A test that loads the version in place leaves Python's bytecode caches beside its code.
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert yaml.safe_load((root / "artifacts/checkpoint/config.yaml").read_text()) == {"name": "r"}
    assert {Path(file).suffix for file in files if not file.startswith("code/")} == {
        "", ".json", ".py", ".safetensors", ".txt", ".yaml",
    }  # fmt: skip


def test_the_version_pins_what_it_needs(stored, client):
    root = Path(stored_at(stored, client).removeprefix("file://"))
    assert all("==" in line for line in (root / "requirements.txt").read_text().split())


@pytest.mark.cluster
def test_the_registered_model_loads_without_the_project_and_the_network(stored, tiny_run, client, tmp_path):
    (tmp_path / "scene.jpg").write_bytes(SCENES[0])
    code = """
import json, socket, sys

class NoProject:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cluster", "shards", "jobs", "ray"):
            raise ImportError(f"{name} is not where models are served")

def no_network(*arguments, **options):
    raise OSError("there is no network")

sys.meta_path.insert(0, NoProject())
socket.socket.connect = socket.getaddrinfo = no_network
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
written = model.predict(pandas.DataFrame({"image": [open(sys.argv[2], "rb").read()]}))
import captioning
print(json.dumps([written["caption"][0], captioning.__file__]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, stored_at(stored, client), str(tmp_path / "scene.jpg")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    caption, module = json.loads(answer.stdout.splitlines()[-1])
    (wanted,) = expected(tiny_run, client, SCENES[:1])
    assert (caption, "/code/captioning/" in module) == (wanted.captions[0], True)
