"""Named presets of a training run; each lists only what differs from the defaults."""

from dataclasses import replace

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from cluster.config import ClusterConfig, StorageConfig, TrainRun, ValidationConfig

_SMALL = ModelConfig(
    backbone="alexnet",
    weights="none",
    trainable_from="all",
    image_size_px=64,
    pooling="none",
    image_input="every",
    embedding_size=128,
    hidden_size=256,
    dropout=0.0,
)
_AT_THE_END = 1_000_000_000
"""Steps between checkpoints of a training that is validated only at its end."""
# Figures are of 3,000 Flickr8k photographs, with features of MobileNetV2, and 500 others to validate on; one seed each.
# Twenty epochs: after ten, the validation loss of the LSTM still falls, by 0.06 nats in the last three. Batches of 32:
# 94 steps an epoch. Averaged weights: their captions gain 0.006 in CIDEr-D.
_REGULARIZED = TrainingConfig(num_epochs=20, batch_size=32, label_smoothing=0.1, ema_decay=0.999)
# The captions count, not the loss; self-critical training, which makes the loss worse, can follow.
_BY_CIDER_D = ValidationConfig(best_by="validation_cider_d")
TRAIN_PRESETS = {
    "default": ("ResNet-152 and an LSTM of 512 units", TrainRun()),
    "smoke": (
        "synthetic scenes, a small encoder trained from scratch, one minute on two CPU cores",
        TrainRun(
            name="smoke",
            model=_SMALL,
            optimizer=OptimizerConfig(
                learning_rate=3e-3, encoder_learning_rate_factor=0.3, encoder_delay_steps=60, warmup_steps=50
            ),
            training=TrainingConfig(num_epochs=4, batch_size=32, flip=False, crop_area=1.0, checkpoint_every_steps=250),
        ),
    ),
    "classic": (
        "a tutorial's recipe, to compare with: LSTM, no dropout, five epochs, the last checkpoint, greedy search",
        TrainRun(
            name="classic",
            # The features' standardization takes the place of batch normalization, which would learn from a batch.
            model=ModelConfig(backbone="resnet152", embedding_size=256, hidden_size=512, dropout=0.0),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0, final_factor=1.0, weight_decay=0.0),
            training=TrainingConfig(num_epochs=5, batch_size=128, checkpoint_every_steps=_AT_THE_END),
            validation=ValidationConfig(beam_size=1),
        ),
    ),
    "show-and-tell": (
        "frozen ResNet-152, LSTM of 512 units that reads the image with each word",
        TrainRun(
            name="show-and-tell",
            # Read with each word, the image is not forgotten.
            model=ModelConfig(backbone="resnet152", image_input="every"),
            training=_REGULARIZED,
        ),
    ),
    "attend": (
        "frozen ResNet-152, two LSTMs of 512 units with attention over the regions of the image between them",
        TrainRun(
            name="attend",
            # 512 units: with 256, the validation loss is higher after as many epochs, which take half the time.
            model=ModelConfig(decoder="attend"),
            training=_REGULARIZED,
            validation=_BY_CIDER_D,
        ),
    ),
    "transformer": (
        "frozen ResNet-152, transformer of two layers of 512 units",
        TrainRun(
            name="transformer",
            # Few photographs: less depth and more dropout than for translation.
            model=ModelConfig(decoder="transformer", num_layers=2, dropout=0.3),
            optimizer=OptimizerConfig(learning_rate=5e-4),
            training=_REGULARIZED,
            validation=_BY_CIDER_D,
        ),
    ),
    "coco": (
        "COCO 2017 on one GPU per worker: attend, bf16, ResNet-152 trained from layer4 on",
        TrainRun(
            name="coco",
            # The decoder with the best captions here.
            model=ModelConfig(decoder="attend", trainable_from="layer4"),
            training=replace(_REGULARIZED, precision="bf16", batch_size=256),
            validation=_BY_CIDER_D,
            cluster=ClusterConfig(use_gpu=True, cpus_per_worker=8, num_workers=1),
        ),
    ),
}


def preset(name: str) -> TrainRun:
    """Return the settings of a preset, with the home folder that CAPTIONING_HOME names now.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in TRAIN_PRESETS:
        raise ValueError(f"there is no preset {name}; use one of {', '.join(TRAIN_PRESETS)}")
    return replace(TRAIN_PRESETS[name][1], storage=StorageConfig())
