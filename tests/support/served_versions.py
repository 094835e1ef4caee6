"""Registered models, loaded as MLflow serves them, and what the checkpoint itself answers."""

import base64

import mlflow.pyfunc
import pandas

from captioning.generation.config import GenerationConfig
from cluster.evaluation.evaluate import load_captioner
from cluster.registry.models import resolve_model
from cluster.registry.safe_loading import stored_at
from shards.synthetic.scenes import draw_scene, render
from tests.support.pictures import encoded

SCENES = [encoded(render(draw_scene(0, number, size_px=64))) for number in range(3)]


def load(created, client):
    return mlflow.pyfunc.load_model(stored_at(created, client))


def text(content):
    return base64.b64encode(content).decode()


def ask(model, *images, **params):
    return model.predict(pandas.DataFrame({"image": list(images)}), params=params).to_dict("records")


def expected(tiny_run, client, contents, **settings):
    folder, search = resolve_model(str(tiny_run), client).folder, GenerationConfig(**settings)
    captioner = load_captioner(folder, generation=search, batch_size=16)
    return list(captioner.caption(contents))
