"""The settings of a model and of its training; imports neither torch nor Ray, so that ``--help`` is quick."""

import math
from dataclasses import dataclass
from typing import Literal

# No other: some of Pillow's readers start programs, such as Ghostscript for EPS.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The model: an encoder and a decoder."""

    backbone: str = "resnet152"
    """Any torchvision classifier by name, cut before its pooling."""
    weights: str = "DEFAULT"
    """Initial weights of the encoder: DEFAULT (torchvision's own, downloaded), none, or a .pth or .safetensors file."""
    trainable_from: str | None = None
    """Train the encoder from this stage on (a parameter prefix such as layer4), or all; frozen if not given."""
    image_size_px: int = 224
    """Side of the square that the encoder sees, in pixels."""
    decoder: Literal["lstm"] = "lstm"
    """lstm: Show and Tell (arXiv 1411.4555)."""
    pooling: Literal["mean", "none"] = "mean"
    """Input of the LSTM for an image: mean, the mean of its regions; none, all regions side by side, which keeps where
    things are and suits small images."""
    image_input: Literal["first", "every"] = "first"
    """When the LSTM reads the image: before the first word, as Show and Tell does, or added to every word as well,
    which learns faster and overfits sooner."""
    embedding_size: int = 512
    """Size of a word's embedding."""
    hidden_size: int = 512
    """Size of the LSTM's hidden state."""
    dropout: float = 0.5
    """Share of units dropped before and after the LSTM in training."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        _require_positive(self, "image_size_px", "embedding_size", "hidden_size")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is no share of the units; use 0 up to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3
    """Highest learning rate, reached at the end of the warm-up."""
    encoder_learning_rate_factor: float = 0.1
    """The encoder's trainable part learns at this multiple of the learning rate."""
    encoder_delay_steps: int = 0
    """Steps before the encoder's trainable part begins to learn; its rate then rises over as many steps again. Without
    pretrained weights, the gradients of an untrained decoder would otherwise spoil it first."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises from zero."""
    final_factor: float = 0.01
    """The learning rate ends at this multiple of its highest value."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; vectors have none."""
    max_gradient_norm: float = 5.0
    """Gradients are scaled down to this global norm."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        _require_positive(self, "learning_rate", "max_gradient_norm")
        _require_not_negative(
            self, "encoder_learning_rate_factor", "encoder_delay_steps", "warmup_steps", "weight_decay"
        )
        if not 0 <= self.final_factor <= 1:
            raise ValueError(f"final factor {self.final_factor} is no share of the learning rate; use 0 up to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The training loop: how long, on which batches, and which checkpoints are kept."""

    num_epochs: float = 10.0
    """Passes over the training split."""
    batch_size: int = 64
    """Images in a step, over all workers; the encoder runs once for all captions of an image."""
    accumulation: int = 1
    """Parts into which a worker splits its share of a batch, to save memory."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward and backward in bfloat16 where it is safe; weights stay in fp32."""
    label_smoothing: float = 0.0
    """Share of a target word's probability that is spread over the whole vocabulary."""
    max_caption_words: int = 30
    """Longer captions are cut."""
    crop_area: float = 0.7
    """Smallest area of a training crop, as a share of the image's largest square; 1 crops the longer side alone."""
    flip: bool = True
    """Mirror half of the training images; turn it off where captions say left and right."""
    shuffle_window_shards: int = 16
    """Number of shards whose samples are shuffled together."""
    checkpoint_every_steps: int = 0
    """Steps between checkpoints, each with a validation; 0: once an epoch."""
    keep_best: int = 2
    """Checkpoints of the best score that are kept: of the lowest validation loss, or as --validation.best-by says."""
    keep_last: int = 2
    """Latest checkpoints that are kept."""
    on_bad_sample: Literal["stop", "skip"] = "stop"
    """What to do with a sample that does not decode, has no caption, or whose loss is not finite: skip leaves it out of
    its batch, which is smaller by one; stop ends the training and names it."""
    seed: int = 0
    """Seed of the initial weights, the order of samples, augmentation and dropout."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        _require_positive(
            self, "num_epochs", "batch_size", "accumulation", "max_caption_words", "shuffle_window_shards", "keep_last"
        )
        if not 0 < self.crop_area <= 1:
            raise ValueError(f"crop area {self.crop_area} is no share of an image; use above 0 up to 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label smoothing {self.label_smoothing} is no share; use 0 up to below 1")
        _require_not_negative(self, "checkpoint_every_steps", "keep_best")


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} {value} is not positive and finite; use a number above 0")


def _require_not_negative(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} {value} is negative or not finite; use 0 or more")
