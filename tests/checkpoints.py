""""""

import json
import shutil

import pytest
from tiny import CPU, MODEL, OPTIMIZER, TRAINING, VOCABULARY, batches, training_state

from captioning.checkpoint import (
    CheckpointDescription,
    save_checkpoint,
)
from captioning.description import seal
from captioning.training import train

DESCRIPTION = CheckpointDescription(
    step=2,
    model=MODEL,
    vocabulary_digest=VOCABULARY.digest,
    max_caption_words=8,
    lineage={"run": "r"},
    metrics={"validation_loss_nats": 2.5},
)


def go_on(state, num_steps):
    """Train for some more steps."""
    stop = state.step + num_steps
    parts = batches(range(state.step, stop))
    options = {"optimizer_config": OPTIMIZER, "config": TRAINING, "num_steps": stop, "device": CPU}
    list(train(state, state.model, parts, **options))


def trained(num_steps=2):
    state = training_state(trainable_from="features.12")
    go_on(state, num_steps)
    return state


def save(folder, state, *, vocabulary=VOCABULARY, config="name: r\n"):
    save_checkpoint(folder, state, vocabulary, description=DESCRIPTION, config=config)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def state():
    return trained()


@pytest.fixture(scope="module")
def original(tmp_path_factory, state):
    return save(tmp_path_factory.mktemp("run") / "checkpoint", state)


@pytest.fixture
def folder(original, tmp_path):
    """Return a copy to be damaged."""
    return shutil.copytree(original, tmp_path / "checkpoint")


def edit_description(folder, **changes):
    """Change a description in a way that its own digest does not tell."""
    path = folder / "checkpoint.json"
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_bytes(seal(content | changes))
