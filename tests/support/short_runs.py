"""Training run of 12 steps on synthetic scenes, with three checkpoints."""

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from cluster.config import StorageConfig, TrainRun

MODEL = ModelConfig(
    backbone="squeezenet1_1", weights="none", trainable_from="features.12", image_size_px=36, embedding_size=16,
    hidden_size=16, dropout=0.3,
)  # fmt: skip
NUM_STEPS = 12


def short_run(shards, home, **settings):
    """Return the run.

    Args:
        shards: folder of the shard set.
        home: home folder of the run.
        settings: further settings of the run.
    """
    return TrainRun(
        shards=shards,
        model=MODEL,
        optimizer=OptimizerConfig(warmup_steps=2),
        training=TrainingConfig(num_epochs=1.5, batch_size=15, checkpoint_every_steps=5, keep_last=3),
        storage=StorageConfig(home=home),
        **settings,
    )
