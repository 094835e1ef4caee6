"""Settings of the model and of its training. Imports neither torch nor Ray, so that ``--help`` starts quickly."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from captioning.bounds import negative, not_positive, outside, raise_mistakes, too_large
from captioning.decoder_config import (
    DECODERS,
    SETTINGS_OF_DECODERS,
    DecoderConfig,
    DecoderName,
    ImageInput,
    Pooling,
    foreign_settings,
)

# A closed list, because some of Pillow's other readers start programs, such as Ghostscript for EPS.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
LONGEST_CAPTION_WORDS = 1_000
"""Largest number of words to which captions may be cut."""
NEWEST_ARITHMETIC = 3
"""Version of the order in which training computes, which determines the last bits of the weights. A run keeps the one
that it began with: 1 scores all words at once and computes the LSTM for padding too; 2 does neither; 3 computes no
gradient of the encoder before it learns."""
BEAM_SIZES, BATCH_SIZES = (1, 1_000), (1, 1_000_000)
"""Smallest and largest beam size and number of images in a batch."""
PORTS = (1, 65_535)
"""Smallest and largest number of a port."""
_MOST = 1_000_000
Precision = Literal["fp32", "bf16"]
"""Precision of a computation; bf16 is bfloat16 where that is safe, with weights in fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Settings of the encoder and the decoder."""

    backbone: str = "resnet152"
    """Name of a torchvision classifier, used without its pooling and head."""
    weights: str = "DEFAULT"
    """Initial weights of the encoder: DEFAULT (torchvision's), none (random), or a .pth or .safetensors file."""
    trainable_from: str | None = None
    """First encoder stage to train (a parameter prefix such as layer4), or all; the encoder is frozen if not given."""
    image_size_px: int = 224
    """Side of the encoder's square input, in pixels."""
    decoder: DecoderName = "lstm"
    """Architecture of the decoder: lstm, Show and Tell (arXiv 1411.4555); attend, an LSTM that attends over the regions
    of the image, as Bottom-Up and Top-Down (arXiv 1707.07998) does; transformer (arXiv 1706.03762)."""
    pooling: Pooling | None = None
    """Of lstm: image features that it reads; mean if not given. mean averages the regions; none concatenates them,
    which keeps the positions of objects and suits small images."""
    image_input: ImageInput | None = None
    """Of lstm: words at which it reads the image; first if not given. first: once before the first word, as in Show and
    Tell; every: also with each word, which learns faster and overfits sooner."""
    embedding_size: int | None = None
    """Of lstm and attend: size of the word embeddings; 512 if not given."""
    hidden_size: int | None = None
    """Size of the decoder's hidden state, in a transformer also of its embeddings; 512 if not given."""
    num_heads: int | None = None
    """Of attend and transformer: number of attention heads, which share the hidden state; 8 if not given."""
    num_layers: int | None = None
    """Of transformer: number of layers; 3 if not given."""
    dropout: float | None = None
    """Fraction of the decoder's units dropped in training; if not given, 0.5, and 0.1 in a transformer."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def __eq__(self, other: object) -> bool:
        """Return whether both are settings of the same model; a default need not be given."""
        return self.resolved() == other.resolved() if isinstance(other, ModelConfig) else NotImplemented

    def __hash__(self) -> int:
        """Return a hash, the same for settings of the same model."""
        return hash(tuple(self.resolved().items()))

    def _mistakes(self) -> Iterator[str]:
        yield from not_positive(self, "image_size_px")
        # Far above any sensible value: a registered version's sizes are read from a file that anyone may have written.
        yield from too_large(self, image_size_px=1_024)
        yield from foreign_settings(self.decoder, self._given())
        try:
            _ = self.decoder_config
        except ValueError as error:
            yield from str(error).splitlines()

    def _given(self) -> dict[str, Any]:
        """Return the decoder's settings that were given, by name."""
        return {name: value for name in SETTINGS_OF_DECODERS if (value := getattr(self, name)) is not None}

    @property
    def decoder_config(self) -> DecoderConfig:
        """Return the decoder's own settings, with its defaults for those that were not given."""
        kind = DECODERS[self.decoder]
        own = {field.name for field in fields(kind)}
        return kind(**{name: value for name, value in self._given().items() if name in own})

    @property
    def reads_regions(self) -> bool:
        """Return whether the decoder reads every region of the image, and not only the mean over them."""
        return getattr(self.decoder_config, "pooling", "none") == "none"

    def resolved(self) -> dict[str, Any]:
        """Return all settings that the model has, with its decoder's defaults and without other decoders' settings."""
        shared = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in SETTINGS_OF_DECODERS}
        return shared | asdict(self.decoder_config)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Settings of AdamW with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3
    """Highest learning rate, reached at the end of the warm-up."""
    encoder_learning_rate_factor: float = 0.1
    """Factor on the learning rate for the encoder's trainable part."""
    encoder_delay_steps: int = 0
    """Steps before the encoder's trainable part (--model.trainable-from) starts to learn; until then it costs no more
    than a frozen one, and then its rate rises over as many steps again. Protects the encoder from the gradients of an
    untrained decoder."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises from zero."""
    final_factor: float = 0.01
    """Learning rate at the last step, as a fraction of the highest."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; vectors, such as biases, are not decayed."""
    max_gradient_norm: float = 5.0
    """Global norm to which larger gradients are clipped."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        yield from not_positive(self, "learning_rate", "max_gradient_norm")
        yield from negative(self, "encoder_learning_rate_factor", "encoder_delay_steps", "warmup_steps", "weight_decay")
        if not 0 <= self.final_factor <= 1:
            yield f"final_factor {self.final_factor} is not a fraction of the learning rate; use 0 to 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Settings of the training loop: its length, its batches, and the checkpoints that it keeps."""

    num_epochs: float = 10.0
    """Number of passes over the training split; may be a fraction."""
    batch_size: int = 64
    """Images per step, over all workers; the encoder runs once for all captions of an image."""
    accumulation: int = 1
    """Number of parts that a worker splits its share of a batch into, to save memory (gradient accumulation)."""
    precision: Precision = "fp32"
    """Precision of the forward and backward pass; bf16 uses bfloat16 where it is safe, with weights in fp32."""
    label_smoothing: float = 0.0
    """Fraction of a target word's probability that is spread over the whole vocabulary."""
    ema_decay: float = 0.0
    """Moving average of the weights: the share of the old average that a step keeps, such as 0.999; 0 keeps none.
    Checkpoints, scores, versions and captions are then of the averaged weights, and only training goes on from the last
    ones, whose validation loss is reported beside."""
    max_caption_words: int = 30
    """Largest number of words in a caption; longer captions are cut."""
    crop_area: float = 0.7
    """Smallest area of a training crop, as a fraction of the image's largest square; 1 crops only the longer side."""
    flip: bool = True
    """Mirror half of the training images; turn this off if captions mention left and right."""
    shuffle_window_shards: int = 16
    """Number of shards whose samples are shuffled together."""
    checkpoint_every_steps: int = 0
    """Steps between checkpoints, each with a validation; 0 is once per epoch."""
    keep_best: int = 2
    """Number of best checkpoints to keep, by the score that --validation.best-by names (validation loss by default)."""
    keep_last: int = 2
    """Number of latest checkpoints to keep."""
    self_critical_epochs: float = 0.0
    """Further passes over the training split, after those of num_epochs, in self-critical training (arXiv 1612.00563):
    from the best checkpoint so far, the model learns from the CIDEr-D of captions that it generates. Needs
    --validation.best-by validation_cider_d."""
    self_critical_captions: Literal["beam", "sampled"] = "beam"
    """Captions that self-critical training compares: beam, the best ones of a beam search (arXiv 1912.08226); sampled,
    word by word from the model's probabilities, which takes more epochs."""
    self_critical_samples: int = 5
    """Captions of each image in self-critical training; each is compared with the mean of the others (arXiv
    2003.09971)."""
    self_critical_learning_rate: float = 5e-5
    """Learning rate of self-critical training, the same at every step."""
    self_critical_bleu_weight: float = 0.0
    """Factor on BLEU-4 (0 to 1) in the reward of self-critical training, where it is added to CIDEr-D (0 to 10)."""
    on_bad_sample: Literal["stop", "skip"] = "stop"
    """Response to a sample that does not decode, has no caption, or has a loss that is not finite: stop ends the
    training with an error that names it; skip leaves it out of its batch, which is then smaller by one."""
    seed: int = 0
    """Seed of the initial weights, the order of samples, augmentation and dropout."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        yield from not_positive(
            self, "num_epochs", "batch_size", "accumulation", "max_caption_words", "shuffle_window_shards", "keep_last"
        )
        if not 0 < self.crop_area <= 1:
            yield f"crop_area {self.crop_area} is not a fraction of an image; use a value above 0, up to 1"
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                yield f"{name} {getattr(self, name)} is not a fraction; use a value from 0 to below 1"
        yield from not_positive(self, "self_critical_learning_rate")
        yield from negative(
            self, "checkpoint_every_steps", "keep_best", "self_critical_epochs", "self_critical_bleu_weight"
        )
        yield from outside(self, self_critical_samples=(2, 1_000))
        yield from too_large(self, max_caption_words=LONGEST_CAPTION_WORDS, num_epochs=_MOST, batch_size=BATCH_SIZES[1])
        yield from too_large(self, self_critical_epochs=_MOST, self_critical_bleu_weight=_MOST)
        yield from too_large(self, accumulation=_MOST, shuffle_window_shards=_MOST, keep_best=_MOST, keep_last=_MOST)
