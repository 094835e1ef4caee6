"""The captioning model: an image encoder and a word decoder."""

from torch import Tensor, nn

from captioning.config import ModelConfig
from captioning.data.batches import CaptionBatch
from captioning.hashing import DropoutKeys
from captioning.model.decoders.factory import build_decoder
from captioning.model.encoder import Encoder
from captioning.model.packing import Packing
from captioning.model.word_loss import word_loss_sum


class CaptionModel(nn.Module):
    """An image encoder and a word decoder.

    Args:
        config: settings of both.
        vocabulary_size: V, the number of words in the vocabulary.
        load_weights: whether to load ``config.weights`` into the encoder; unnecessary if a checkpoint is loaded next.
    """

    def __init__(self, config: ModelConfig, *, vocabulary_size: int, load_weights: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(config, load_weights=load_weights)
        self.decoder = build_decoder(
            config,
            num_regions=self.encoder.num_regions,
            num_channels=self.encoder.num_channels,
            vocabulary_size=vocabulary_size,
        )

    def forward(
        self,
        batch: CaptionBatch,
        dropout_seed: int | None = None,
        packing: Packing | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Score the next word at every position of every caption (teacher forcing), or sum the losses of the words.

        The encoder runs once for each image, however many captions it has.

        Args:
            batch: images or extracted features, and captions, on the model's device.
            dropout_seed: seed of the dropout; None drops nothing.
            packing: packing of the batch's captions; None for logits.
            label_smoothing: as in ``losses.cross_entropy_sum``, for the loss.

        Returns:
            (M, V) logits for the M targets of ``batch.targets()``, in its order; with ``packing``, () loss in nats,
            summed over the targets, times ``batch.weights()``, and computed in less time and memory.
        """
        if packing is not None:
            hidden = self.hidden(batch, dropout_seed, packing)
            return word_loss_sum(
                hidden,
                self.decoder.output,
                batch.targets(),
                label_smoothing=label_smoothing,
                weights=batch.weights(),
            )
        return self.decoder.score(self.hidden(batch, dropout_seed))

    def hidden(self, batch: CaptionBatch, dropout_seed: int | None = None, packing: Packing | None = None) -> Tensor:
        """Compute the hidden state that scores each target: (M, H); arguments as for ``forward``."""
        keys = None if dropout_seed is None else DropoutKeys.of(dropout_seed, batch.position, batch.caption)
        features = self.encode(batch.images)
        hidden = self.decoder(features, batch.tokens[:, :-1], batch.image_of_caption, keys, packing)
        return hidden.flatten(0, 1).index_select(0, batch.target)

    def encode(self, images: Tensor) -> Tensor:
        """Return region features of images; extracted features pass through.

        Args:
            images: (B, 3, S, S) uint8 pixels, or (B, R, C) extracted features of any float type.

        Returns:
            (B, R, C) features in the encoder's dtype.
        """
        return images.to(self.encoder.mean.dtype) if images.is_floating_point() else self.encoder(images)


def meta_model(config: ModelConfig, *, vocabulary_size: int) -> CaptionModel:
    """Return a model whose layers have shapes but no memory, to compute sizes and to check weights."""
    from captioning.model.backbone import ParametersOnMeta  # imports torchvision

    with ParametersOnMeta():
        return CaptionModel(config, vocabulary_size=vocabulary_size, load_weights=False)


def allocate(model: CaptionModel) -> None:
    """Give uninitialized memory on the CPU to the parameters of a model that has none."""
    from captioning.model.backbone import give_memory  # imports torchvision

    give_memory(model)


def count_parameters(config: ModelConfig, *, vocabulary_size: int) -> int:
    """Return the number of parameters of a model, frozen ones included, without allocating it."""
    return sum(weight.numel() for weight in meta_model(config, vocabulary_size=vocabulary_size).parameters())
