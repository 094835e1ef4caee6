"""Checkpoints of a tiny model after one or two steps."""

from captioning.training.checkpoint import save_checkpoint
from captioning.training.checkpoint_description import CheckpointDescription
from captioning.training.loop import train
from tests.support.tiny_models import CPU, MODEL, OPTIMIZER, TRAINING, VOCABULARY, batches, training_state

DESCRIPTION = CheckpointDescription(
    step=2,
    model=MODEL,
    vocabulary_digest=VOCABULARY.digest,
    max_caption_words=8,
    lineage={"run": "r"},
    metrics={"validation_loss_nats": 2.5},
)


def go_on(state, num_steps):
    """Train for ``num_steps`` more steps."""
    stop = state.step + num_steps
    parts = batches(range(state.step, stop))
    options = {"optimizer_config": OPTIMIZER, "config": TRAINING, "num_steps": stop, "device": CPU}
    list(train(state, state.model, parts, **options))


def trained(num_steps=2, **options):
    state = training_state(trainable_from="features.12", **options)
    go_on(state, num_steps)
    return state


def save(folder, state, *, vocabulary=VOCABULARY, config="name: r\n"):
    save_checkpoint(folder, state, vocabulary, description=DESCRIPTION, config=config)
    return folder
