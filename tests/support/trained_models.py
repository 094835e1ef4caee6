"""Tiny models that were trained on synthetic scenes just long enough to differ in score."""

import torch

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.model.caption_model import CaptionModel
from captioning.training.checkpoint import save_checkpoint
from captioning.training.checkpoint_description import CheckpointDescription, describe_checkpoint
from captioning.training.loop import TrainingState
from captioning.training.losses import cross_entropy_sum
from captioning.training.optimizer import build_optimizer
from cluster.registry.models import ResolvedModel

MODEL = ModelConfig(
    backbone="squeezenet1_1", weights="none", image_size_px=64, embedding_size=16, hidden_size=32, dropout=0.0
)
WORSE, BETTER = 10, 30
"""Training steps: the worse model repeats one word; the better one writes a sentence that fits some scenes."""
_models = {}


def trained(folder, shard_set, num_steps, *, name=None, version=None):
    """Train a model on 40 scenes, once in a process, and write its checkpoint to a new folder."""
    description = CheckpointDescription(
        step=num_steps, model=MODEL, vocabulary_digest=shard_set.vocabulary.digest, max_caption_words=12
    )
    key = (shard_set.manifest.digest, num_steps)
    model = _models[key] = _models.get(key) or _train(shard_set, num_steps)
    state = TrainingState(model, build_optimizer(model, OptimizerConfig()))
    save_checkpoint(folder, state, shard_set.vocabulary, description=description, config="name: r\n")
    return resolved(folder, name=name, version=version)


def _train(shard_set, num_steps):
    batch = shard_set.source("train", model=MODEL, config=TrainingConfig(max_caption_words=12)).batch(
        range(40), range(40), is_training=False
    )
    torch.manual_seed(0)
    model = CaptionModel(MODEL, vocabulary_size=len(shard_set.vocabulary))
    with torch.no_grad():
        batch = batch._replace(images=model.encode(batch.images))
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=0.02)
    for _ in range(num_steps):
        optimizer.zero_grad()
        (cross_entropy_sum(model(batch), batch.targets()) / len(batch.targets())).backward()
        optimizer.step()
    return model


def resolved(folder, *, name=None, version=None):
    return ResolvedModel(folder=folder, description=describe_checkpoint(folder), name=name, version=version)
